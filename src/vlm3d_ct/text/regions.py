"""The region table: which label id is which anatomical region, and which words speak of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from jaxtyping import UInt8
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from vlm3d_ct.errors import ConfigError

RegionId = Annotated[int, Field(ge=1, le=255)]
Synonym = Annotated[str, Field(pattern=r"^\w[\w#]*\*?( \w[\w#]*\*?)*$")]
Structure = Annotated[str, Field(pattern=r"^\w+( \w+)*( ?#)?$")]
MOST_NUMBERED = 12
"""Numbers that a # in a structure's name stands for: 1 to this; no row of ribs or vertebrae is longer."""
TotalSegmentatorVersion = Literal[1, 2]


@checked_dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class Region:
    """One anatomical region.

    Attributes:
        id: its label in region masks, 1..n.
        name: what people read.
        synonyms: the phrases that mention it (for the notation see ``regions.yaml``); its name is not one by itself.
        side: the body side it belongs to.
        mirror: id of its partner on the other side; None for unsided regions, and where there is no partner.
        mirrored_as: for a sided region without partner: the label that its voxels take in a mirrored mask.
        lobe: which pulmonary lobe of its side it is; None for everything else.
        structures: the anatomical structures that make it, besides the one of its name (notation: ``regions.yaml``).
        derived: whether it is made, in whole or in part, from other regions where the source does not label it.
    """

    id: RegionId
    name: Annotated[str, Field(min_length=1)]
    synonyms: tuple[Synonym, ...] = ()
    side: Literal["left", "right", "none"] = "none"
    mirror: RegionId | None = None
    mirrored_as: RegionId | None = None
    lobe: Literal["upper", "middle", "lower"] | None = None
    structures: tuple[Structure, ...] = ()
    derived: bool = False

    @property
    def structure_names(self) -> tuple[str, ...]:
        """Every structure that makes it, in lower case, numbers written out; its own name is the first."""
        names = [self.name.casefold()]
        for structure in self.structures:
            numbers = range(1, MOST_NUMBERED + 1) if "#" in structure else (0,)
            names += [structure.casefold().replace("#", str(number)) for number in numbers]
        return tuple(names)


@checked_dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class PhraseGroup:
    """Phrases that speak of several regions, or of a region by implication.

    Attributes:
        regions: ids of the regions.
        synonyms: the phrases.
        unless: the group counts only if none of these regions is mentioned otherwise (``any``: no region at all).
    """

    regions: Annotated[tuple[RegionId, ...], Field(min_length=1)]
    synonyms: Annotated[tuple[Synonym, ...], Field(min_length=1)]
    unless: tuple[RegionId, ...] | Literal["any"] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionTable:
    """The regions in the order of their ids, and the phrases of several regions. Compared by identity."""

    regions: tuple[Region, ...]
    groups: tuple[PhraseGroup, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the ids; the first is id 1."""
        return tuple(region.name for region in self.regions)

    @property
    def num_regions(self) -> int:
        """How many regions there are, background not counted."""
        return len(self.regions)

    @property
    def structures(self) -> dict[str, int]:
        """Region id of each anatomical structure by its name, in lower case."""
        return {name: region.id for region in self.regions for name in region.structure_names}

    def totalsegmentator_lookup(self, version: TotalSegmentatorVersion = 2) -> UInt8[np.ndarray, "256"]:
        """Region id of each label of TotalSegmentator's task ``total``; 0 where the label is in no region."""
        lookup = np.zeros(256, np.uint8)
        for label, name in enumerate(totalsegmentator_classes(version), start=1):
            lookup[label] = self.structures.get(name.replace("_", " ").casefold(), 0)
        return lookup

    def mirror_lookup(self) -> UInt8[np.ndarray, " labels"]:
        """Label of each label (0..num_regions) in a left-right mirrored mask.

        Partners swap, unsided regions stay, and a region without partner takes its ``mirrored_as``: the voxels of
        the right middle lobe become left upper lobe, the lingula's place. The lookup is therefore not its own
        inverse: mirroring twice turns the middle lobe into right upper lobe.
        """
        lookup = np.arange(self.num_regions + 1, dtype=np.uint8)
        for region in self.regions:
            lookup[region.id] = region.mirror or region.mirrored_as or region.id
        return lookup


@checked_dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class _TableFile:
    regions: Annotated[tuple[Region, ...], Field(min_length=1, max_length=255)]
    groups: tuple[PhraseGroup, ...] = ()


@cache
def load_region_table(path: Path | None = None) -> RegionTable:
    """The region table of a YAML file; None gives the 20 chest regions that ship with the package.

    The same path gives the same object for the life of the process.

    Raises:
        ConfigError: the file cannot be read or breaks a rule; the message lists every breach.
    """
    source = path if path is not None else resources.files("vlm3d_ct.text").joinpath("regions.yaml")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The region table {source} cannot be read: {error}") from error
    try:
        table = TypeAdapter(_TableFile).validate_python(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join([f"The region table {source} is wrong:", *lines])) from error
    breaches = list(_breaches(table))
    if breaches:
        raise ConfigError("\n".join([f"The region table {source} is wrong:", *breaches]))
    return RegionTable(regions=table.regions, groups=table.groups)


@cache
def totalsegmentator_classes(version: TotalSegmentatorVersion) -> tuple[str, ...]:
    """The classes of TotalSegmentator's task ``total`` in the order of their labels; the first is label 1."""
    source = resources.files("vlm3d_ct.text").joinpath("totalsegmentator.yaml")
    return tuple(yaml.safe_load(source.read_text(encoding="utf-8"))[f"version_{version}"])


def _breaches(table: _TableFile) -> Iterator[str]:
    ids = [region.id for region in table.regions]
    if ids != list(range(1, len(ids) + 1)):
        yield f"regions: ids are {ids}; they must be 1..{len(ids)} in order, without gaps."
        return
    yield from _mirror_breaches(table.regions)
    synonyms = [region.synonyms for region in table.regions] + [group.synonyms for group in table.groups]
    for what, values in (
        ("region name", [region.name.casefold() for region in table.regions]),
        ("structure", [name for region in table.regions for name in region.structure_names]),
        ("lobe", [(region.side, region.lobe) for region in table.regions if region.lobe]),
        ("synonym", [phrase for phrases in synonyms for phrase in phrases]),
    ):
        for value, count in Counter[object](values).items():
            if count > 1:
                yield f"regions: the {what} {value!r} occurs {count} times; it may belong to one entry only."
    for index, group in enumerate(table.groups):
        named = group.regions if group.unless == "any" else group.regions + group.unless
        unknown = sorted({number for number in named if number > len(ids)})
        if unknown:
            yield f"groups.{index}: there is no region {unknown}."


def _mirror_breaches(regions: tuple[Region, ...]) -> Iterator[str]:
    opposite = {"left": "right", "right": "left"}
    for region in regions:
        where = f"regions: {region.id} ({region.name})"
        if region.side == "none":
            if region.mirror is not None or region.mirrored_as is not None or region.lobe is not None:
                yield f"{where}: an unsided region has no mirror, no mirrored_as and no lobe."
            continue
        if (region.mirror is None) == (region.mirrored_as is None):
            yield f"{where}: a sided region needs either mirror or mirrored_as."
            continue
        other = region.mirror or region.mirrored_as or 0
        if other > len(regions) or regions[other - 1].side != opposite[region.side]:
            yield f"{where}: region {other} is not on the other side."
        elif region.mirror is not None and regions[other - 1].mirror != region.id:
            yield f"{where}: its mirror {other} does not name it as its own mirror."
