"""A W&B server for tests that takes artifacts, workspaces and reports too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.sinks.wandb_server import WandbServer

COMMITTED, PENDING = "COMMITTED", "PENDING"


class DashboardServer(WandbServer):
    """Keeps what a dashboard is made of.

    artifacts: by their names, the digests of their versions in order. views: workspaces and reports by their ids, as
    they were last saved; `saved` counts how often. configs: of runs, as a resumed run gets its own back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, list[str]] = {}
        self.states: dict[str, str] = {}
        self.artifact_files: dict[str, list[str]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.saved = 0
        self.configs: dict[str, dict[str, Any]] = {}

    def answer_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        """Open a run, or change it; keep its config."""
        config = json.loads(given.get("config") or "{}")
        self.configs.setdefault(given["name"], {}).update(config)
        return super().answer_UpsertBucket(given)

    def answer_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any] | None:
        """Return what there is of a run, with its config."""
        found = super().answer_RunResumeStatus(given)
        if found is not None:
            found["model"]["bucket"]["config"] = json.dumps(self.configs[given["name"]])
        return found

    def answer_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        """Know of no artifact by its name."""
        return {"project": {"artifact": None}}

    def answer_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take in a version of an artifact, or name the one that has the same digest."""
        values = given.get("input") or given
        name = (values.get("artifactCollectionNames") or [values.get("artifactCollectionName")])[0]
        digest = values["digest"]
        versions = self.artifacts.setdefault(name, [])
        if digest not in versions:
            versions.append(digest)
        identifier = base64.b64encode(f"{name}:{digest}".encode()).decode()
        state = self.states.setdefault(f"{name}:{digest}", PENDING)
        place = versions.index(digest)
        latest = {"id": identifier, "versionIndex": place} if state == COMMITTED else None
        artifact = {"id": identifier, "state": state, "artifactSequence": {"id": name, "latestArtifact": latest}}
        return {"createArtifact": {"artifact": artifact}}

    def answer_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the list of an artifact's files is uploaded."""
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given)}}

    def answer_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where it is uploaded again."""
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(given)}}

    def _manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        # An update names the list, not the artifact.
        name = given.get("artifactManifestID") or f"{version_of(given['artifactID'])}.json".replace(":", "-")
        return {"id": name, "file": {"id": name, "name": name, "displayName": name, **self._upload(name)}}

    def _upload(self, name: str) -> dict[str, Any]:
        return {"uploadUrl": f"{self.url}/storage/artifacts/{name}", "uploadHeaders": []}

    def answer_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the files of artifacts are uploaded."""
        edges = []
        for one in (given.get("input") or given)["artifactFiles"]:
            version = version_of(one["artifactID"])
            self.artifact_files.setdefault(version, []).append(one["name"])
            path = f"{version}/{one['name']}".replace(":", "-")
            node = {
                "id": path,
                "name": one["name"],
                "displayName": one["name"],
                "storagePath": path,
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
                **self._upload(path),
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def answer_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        """Close a version."""
        version = version_of(given["artifactID"])
        self.states[version] = COMMITTED
        digest = version.partition(":")[2]
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": digest}}}

    def answer_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a version of an artifact, for which wandb before 0.30 asks."""
        version = version_of(given["id"])
        name, _, digest = version.partition(":")
        place = {"id": "p", "internalId": "1", "name": "mine", "entity": {"name": "us"}}
        about = {"description": None, "metadata": "{}", "tags": [], "historyStep": None, "commitHash": None}
        times = {
            "createdAt": "2026-11-01T00:00:00",
            "updatedAt": None,
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
        }
        size = {"size": 0, "fileCount": 0, "versionIndex": 0, "state": self.states[version], "digest": digest}
        sequence = {"id": name, "name": name, "project": place, "__typename": "ArtifactSequence"}
        kind = {"artifactType": {"name": "study"}, "artifactSequence": sequence, "aliases": []}
        return {"artifact": {"__typename": "Artifact", "id": given["id"], **about, **times, **size, **kind}}

    def answer_FetchArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the list of an artifact's files is, for which wandb before 0.30 asks."""
        url = self._manifest({"artifactID": given["id"]})["file"]["uploadUrl"]
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def answer_ProjectInternalId(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a project's id."""
        return {"project": {"id": "p", "internalId": "1"}}

    def answer_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        """List the projects."""
        node = {
            "id": "p",
            "name": "mine",
            "entityName": "us",
            "createdAt": "2026-11-01T00:00:00",
            "isBenchmark": False,
            "user": None,
        }
        more = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node, "cursor": "1"}], "pageInfo": more}}

    def answer_UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        """Save a workspace or a report."""
        identifier = given.get("id") or base64.b64encode(f"View:{len(self.views):04}".encode()).decode()
        is_new = identifier not in self.views
        self.views[identifier] = given
        self.saved += 1
        return {"upsertView": {"view": self._view(identifier), "inserted": is_new}}

    answer_upsertView = answer_UpsertView2
    answer_GetViewer = WandbServer.answer_Viewer

    def _view(self, identifier: str) -> dict[str, Any]:
        view = self.views[identifier]
        project = {"id": "p", "name": view["projectName"], "entityName": view["entityName"]}
        kept = {name: view.get(name) for name in ("type", "name", "displayName", "description", "spec")}
        when = {"createdAt": "2026-11-01T00:00:00", "updatedAt": "2026-11-01T00:00:00"}
        return {"id": identifier, "project": project, **kept, **when}

    def answer_View(self, given: dict[str, Any]) -> dict[str, Any]:
        """Find a workspace by its name."""
        found = [one for one in self.views if self.views[one].get("name") == given["viewName"]]
        return {"project": {"allViews": {"edges": [{"node": self._view(one)} for one in found]}}}

    def answer_SpecificReport(self, given: dict[str, Any]) -> dict[str, Any]:
        """Find a report by its id."""
        return {"view": self._view(given["reportId"]) if given["reportId"] in self.views else None}

    def spec(self, kind: str) -> dict[str, Any]:
        """Return the content of the one view of a kind: project-view (a workspace) or runs (a report)."""
        (found,) = (one for one in self.views.values() if one["type"] == kind)
        spec: dict[str, Any] = json.loads(found["spec"])
        return spec


def version_of(identifier: str) -> str:
    """Return the name and the digest that an artifact's id holds."""
    return base64.b64decode(identifier).decode()


@contextmanager
def serving_dashboards() -> Iterator[DashboardServer]:
    """Serve meanwhile."""
    server = DashboardServer()
    server.start()
    try:
        yield server
    finally:
        server.close()
