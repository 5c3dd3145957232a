"""lr=tuned and wd=tuned: the setting of a cell that others found, published or in a study of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from stability.config import StudyConfig
from stability.errors import UserError, nearest
from stability.study.best import best_setting
from stability.study.initial import INIT, NotThereError, with_initial
from stability.study.named import TUNE_STUDY, TUNED, command_of, study_name
from stability.study.schema import Manifest, Scalar
from stability.study.store import Study, read_manifest
from stability.values import DRAWN, Options, Value, group, number


class Settings:
    """Where the cells of one study get their tuned lr and wd from.

    Args:
        study: the study's configuration; `scale` says whose settings are meant.
        directory: the study's folder. What it holds already stays: settings are looked up once, when a cell is planned.
    """

    def __init__(self, study: StudyConfig, directory: Path) -> None:
        self._scale, self._directory, self._runs = study.scale, directory, Path(study.runs).expanduser()
        self._is_preview = bool(study.plan)
        # What other studies do not have yet, in a plan that trains nothing: a line each.
        self.missing: dict[str, None] = {}

    def of(self, factors: Mapping[str, Scalar], names: Sequence[str]) -> dict[str, float | None]:
        """Return the tuned values of coordinates; None in a preview, where the study that has them has not ended yet.

        Args:
            factors: the cell's, model and optimizer among them.
            names: lr, wd or both.

        Raises:
            UserError: nothing says what they are.
        """
        found = self._planned.get(frozenset(factors.items()), {})
        if not found.keys() >= set(names):
            which = self._scale.get("settings")
            try:
                found = self._found(factors) if which is None else self._listed(str(which), factors)
            except NotThereError as error:
                if not self._is_preview:
                    raise
                self.missing[f"{error}. The plan shows the middle of each range."] = None
                return dict.fromkeys(names)
        return {name: found[name] for name in names}

    def with_initial(self, model: Options, factors: Mapping[str, Scalar]) -> Options:
        """Return a cell's model with the weights found that `model.init` names; see `stability.study.initial`.

        Args:
            model: the configuration.
            factors: the cell's.

        Raises:
            UserError: there are no such weights. A preview goes on without those of the scale's pre-training.
        """
        try:
            return with_initial(model, self.model_of(factors))
        except NotThereError as error:
            given, scale = str(model[INIT]), self._scale.get("name")
            studies = group(self._scale, "pretraining")
            known = {str(studies[name]) for name in ("study", "cnns") if studies.get(name) is not None}
            first = ""
            for name in known & {Path(given).name, Path(given).parent.name}:
                first = f"; first: {command_of(name, None if scale is None else str(scale))}"
            if not (self._is_preview and first):
                raise UserError(f"{error}{first}") from None
            from stability.models.transfer import PARTS

            self.missing[f"{error}{first}. The plan has the models' own weights."] = None
            return {name: value for name, value in model.items() if name not in (INIT, PARTS)}

    @cached_property
    def _manifest(self) -> Manifest | None:
        return read_manifest(self._directory)

    @cached_property
    def _planned(self) -> dict[frozenset[tuple[str, Scalar]], dict[str, float]]:
        """What the study's manifest has for each cell, by its factors: coordinates of one value in all its samples."""
        manifest = self._manifest
        values: dict[frozenset[tuple[str, Scalar]], dict[str, set[float]]] = {}
        for trial in manifest.trials if manifest else ():
            if trial.role == "sample" and manifest:
                own = values.setdefault(frozenset(manifest.cell_of(trial).factors.items()), {})
                for name in DRAWN:
                    own.setdefault(name, set()).add(getattr(trial, name))
        return {cell: {name: min(seen) for name, seen in own.items() if len(seen) == 1} for cell, own in values.items()}

    def model_of(self, factors: Mapping[str, Scalar]) -> Options | None:
        """Return the model that the study's manifest has for a cell; None where it has no such cell."""
        cells = self._manifest.cells if self._manifest else ()
        return next((group(cell.config, "model") for cell in cells if dict(cell.factors) == dict(factors)), None)

    def _listed(self, which: str, factors: Mapping[str, Scalar]) -> dict[str, float]:
        """Return the setting of the first line of a table that fits a cell."""
        lines = self._scale.get(which)
        if not isinstance(lines, list):
            tables = [name for name, value in self._scale.items() if isinstance(value, list)]
            raise UserError(f"scale.settings={which}; accepted: {', '.join(tables) or 'null'}")
        model, optimizer = str(factors["model"]), str(factors["optimizer"])
        for line in lines:
            assert isinstance(line, Mapping), line
            found = group(line, optimizer)
            if fnmatchcase(model, str(line.get("model"))) and found:
                return {name: _number(found.get(name), f"scale.{which}") for name in DRAWN}
        raise UserError(
            f"lr=tuned, wd=tuned: scale.{which} has no setting of {model} with {optimizer}; accepted: lr=VALUE wd=VALUE"
        )

    def _found(self, factors: Mapping[str, Scalar]) -> dict[str, float]:
        """Return the best setting that the scale's study of settings has for a cell's model and optimizer."""
        scale = self._scale.get("name")
        if scale is None:
            raise UserError(
                "lr=tuned, wd=tuned: no scale says whose settings; accepted: scale=NAME, or lr=VALUE wd=VALUE"
            )
        folder = self._folder(str(scale))
        first = f"first: {command_of(TUNE_STUDY, str(scale))}"
        if read_manifest(folder) is None:
            raise NotThereError(
                f"lr=tuned, wd=tuned: {folder} has the settings of scale={scale}, and is not there; {first}"
            )
        study, words = self._study, f"{factors['model']} with {factors['optimizer']}"
        own = [
            trial
            for trial in study.trials
            if all(study.cells[trial.cell].factors.get(name) == factors[name] for name in ("model", "optimizer"))
            and trial.role in ("sample", "tune")
        ]
        missing = sum(study.record(trial) is None for trial in own)
        if not own or missing:
            what = f"is not finished ({missing} of {len(own)} trials are missing)" if own else "is not in it"
            raise NotThereError(f"lr=tuned, wd=tuned: {words} {what}, {folder}; {first}")
        best = best_setting([record for trial in own if (record := study.record(trial)) is not None])
        if best is None:
            raise UserError(
                f"lr=tuned, wd=tuned: no trial of {words} in {folder} completed; accepted: lr=VALUE wd=VALUE"
            )
        return dict(zip(DRAWN, best, strict=True))

    @cached_property
    def _study(self) -> Study:
        return Study.open(self._folder(str(self._scale.get("name"))))

    def _folder(self, scale: str) -> Path:
        return self._runs / study_name(TUNE_STUDY, scale)


def wanted(values: Options) -> list[str]:
    """Return the coordinates of a composed configuration that `tuned` sets. Raises UserError for any other word."""
    words = {name: value for name in DRAWN if isinstance(value := values.get(name), str) and number(value) is None}
    for name, value in words.items():
        if value != TUNED:
            near = nearest(value, [TUNED])
            raise UserError(f"{name}={value!r}{near}; accepted: a number, null, or {TUNED} with scale=NAME")
    return list(words)


def _number(value: Value, where: str) -> float:
    found = number(value)
    if found is None:
        raise UserError(f"{where} holds {value!r}; accepted: a number for lr and for wd")
    return found
