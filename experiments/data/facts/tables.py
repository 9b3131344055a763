"""Real fact tables that come with memx's dependencies: airports, elements, countries -> lists of facts.

Sources: airportsdata (MIT), mendeleev (MIT), countryinfo (MIT). The libraries are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .record import Fact

# countryinfo lists these beside the country that they are, are part of, or have become
_NOT_COUNTRIES = {
    "Antilles néerlandaises",
    "Burma",
    "Holy See (Vatican City State)",
    "Palestine, State of",
    "Scotland",
    "Serbia and Montenegro",
    "Wales",
}
# what has changed since countryinfo's data was gathered, or stands there in another form
_CORRECTIONS: dict[str, dict[str, Any]] = {
    "Belarus": {"currencies": ["BYN"]},
    "Croatia": {"currencies": ["EUR"]},
    "Kazakhstan": {"capital": "Astana"},
    "Mauritania": {"currencies": ["MRU"]},
    "São Tomé and Príncipe": {"currencies": ["STN"]},
    "Sierra Leone": {"currencies": ["SLE"]},
    "Vatican City State": {"capital": "Vatican City"},
    "Venezuela": {"currencies": ["VES"]},
    "Zambia": {"currencies": ["ZMW"]},
}
_SUBREGIONS = {"South-eastern Asia": "South-Eastern Asia"}


def airports() -> list[Fact]:
    """Country and time zone of every airport that has an IATA code; the code is the subject."""
    names = _country_names()
    facts: list[Fact] = []
    for code, airport in _airports():
        zone = airport["tz"].rpartition("/")[2].replace("_", " ")
        facts += _facts(code, airport_country=names.get(airport["country"], ""), airport_time_zone=zone)
    return facts


def airport_cities() -> list[Fact]:
    """The city of every airport that has an IATA code: 6,487 different answers, close to incompressible."""
    return [fact for code, airport in _airports() for fact in _facts(code, airport_city=airport["city"])]


def elements() -> list[Fact]:
    """Symbol, number, group, period, block, series, category and year of discovery of the chemical elements."""
    from mendeleev.fetch import fetch_table

    table = fetch_table("elements")
    series = fetch_table("series").set_index("id")["name"].to_dict()
    facts: list[Fact] = []
    for row in table.to_dict("records"):
        facts += _facts(
            row["name"],
            element_symbol=row["symbol"],
            element_number=_whole(row["atomic_number"]),
            element_group=_whole(row["group_id"]),
            element_period=_whole(row["period"]),
            element_block=row["block"],
            element_series=series.get(row["series_id"], ""),
            element_lattice=row["lattice_structure"],
            element_discovery_year=_whole(row["discovery_year"]),
        )
    return facts


def countries() -> list[Fact]:
    """Capital, region, subregion, demonym, currency, calling code and internet domain of countries."""
    facts: list[Fact] = []
    for country in _countries():
        facts += _facts(
            country["name"],
            country_capital=country.get("capital"),
            country_region=country.get("region"),
            country_subregion=_SUBREGIONS.get(country.get("subregion"), country.get("subregion")),
            country_demonym=country.get("demonym"),
            country_currency=_only(country.get("currencies")),
            country_calling_code=_only(country.get("callingCodes")),
            country_domain=_only(country.get("tld")),
        )
    return facts


def _facts(subject: str, **relations: object) -> Iterator[Fact]:
    for relation, value in relations.items():
        assert value is None or isinstance(value, str | int | float), (subject, relation, value)
        text = "" if value is None or value != value else str(value).strip()  # NaN is not itself
        if text:
            yield Fact(subject, relation, text)


def _airports() -> list[tuple[str, Any]]:
    import airportsdata

    return sorted(airportsdata.load("IATA").items())


def _countries() -> Iterable[Any]:
    from countryinfo import all_countries

    found: dict[str, Any] = {}
    for country in all_countries():
        details = country.info()
        name = str(details["name"])
        if name not in _NOT_COUNTRIES:
            found.setdefault(name, {**details, **_CORRECTIONS.get(name, {})})
    return [found[name] for name in sorted(found)]


def _country_names() -> dict[str, str]:
    """Two-letter code -> country."""
    names = {country["ISO"]["alpha2"]: country["name"] for country in _countries() if country["ISO"].get("alpha2")}
    return {**names, "XK": "Kosovo"}


def _only(values: list[str] | None) -> str | None:
    """The one value there is: with several, no single one is the answer."""
    return values[0] if values and len(values) == 1 else None


def _whole(number: float | None) -> str | None:
    return None if number is None or number != number else str(int(number))
