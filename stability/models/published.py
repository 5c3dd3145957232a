"""Published complexity figures, from the paper's table 2 and from counting with the authors' released code."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """Figures of one published model: parameters (M), multiply-adds (G; the paper's flops), activations (M), blocks."""

    params: float
    multiply_adds: float
    activations: float
    blocks: int | None = None


# Table 2, by the name of the model here. The models named in NEAREST only stand for the published ones.
TABLE_2 = {
    "vitp_1gf": Published(4.8, 1.1, 5.5, 12),
    "vitp_4gf": Published(18.5, 3.9, 11.1, 12),
    "vitp_18gf": Published(86.6, 17.5, 24.0, 12),
    "vitp_36gf": Published(178.4, 35.9, 37.3, 14),
    "vitc_1gf": Published(4.6, 1.1, 5.7, 11),
    "vitc_4gf": Published(17.8, 4.0, 11.3, 11),
    "vitc_18gf": Published(81.6, 17.7, 24.1, 11),
    "vitc_36gf": Published(167.8, 35.0, 36.7, 13),
    "resnet50": Published(25.6, 4.1, 11.3),
    "resnet101": Published(44.5, 7.8, 16.4),
    "resnet152": Published(60.2, 11.5, 22.8),
    "resnet200": Published(64.7, 15.0, 32.3),
    "regnety_1gf": Published(9.6, 1.0, 6.2),
    "regnety_4gf": Published(22.4, 4.1, 14.5),
    "regnety_16gf": Published(72.3, 15.5, 30.7),
    "regnety_32gf": Published(128.6, 31.1, 46.2),
    "regnetz_1gf": Published(11.0, 1.0, 8.8),
    "regnetz_4gf": Published(28.1, 4.0, 24.3),
    "efficientnet_b2": Published(9.1, 1.0, 13.8),
    "efficientnet_b4": Published(19.3, 4.4, 49.5),
    "efficientnet_b5": Published(30.4, 10.3, 98.9),
}
NEAREST = ("regnety_1gf", "regnety_4gf", "regnety_16gf", "regnety_32gf", "regnetz_1gf", "regnetz_4gf")

# The authors' code, which differs from the printed tables in the last digit here and there.
AUTHORS_CODE = {
    "vitp_1gf": Published(4.83, 1.083, 5.52),
    "vitp_4gf": Published(18.51, 3.909, 11.04),
    "vitp_18gf": Published(86.57, 17.580, 23.90),
    "vitp_36gf": Published(178.36, 35.997, 37.14),
    "vitc_1gf": Published(4.57, 1.079, 5.63),
    "vitc_4gf": Published(17.75, 3.966, 11.26),
    "vitc_18gf": Published(81.57, 17.727, 24.02),
    "vitc_36gf": Published(167.80, 35.026, 36.61),
    "vitp_16gf": Published(71.76, 15.461, 43.93),
    "vitc_16gf": Published(71.00, 15.518, 44.15),
    "vitp_72gf": Published(352.95, 71.207, 65.52),
    "vitc_72gf": Published(354.95, 72.789, 67.63),
}
