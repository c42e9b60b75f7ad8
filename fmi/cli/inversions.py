"""``fmi code``, ``feature-map``, ``random`` ...: the functions of fmi.invert for one's pictures."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from fmi.cli.lazy import Command
from fmi.errors import InputError

if TYPE_CHECKING:
    from fmi.networks.base import Network

__all__ = [
    "COMMANDS",
    "Kind",
    "add",
    "add_keywords",
    "check_kept",
    "diverging",
    "given_pictures",
    "is_file",
    "loaded",
    "options_of",
    "sources",
]


@dataclass(frozen=True)
class Kind:
    """What a command asks for.

    Attributes
    ----------
    function
        Name of the function of :mod:`fmi.invert`.
    about
        What it does, for the help.
    example
        Arguments of an example.
    layers, filters, style
        Whether it takes layers, filters and a style picture.
    """

    function: str
    about: str
    example: str
    layers: bool = True
    filters: bool = False
    style: bool = False


COMMANDS: Dict[str, Kind] = {
    "code": Kind(
        "code",
        "invert a code: compute a picture with the same code",
        "photo.jpg --layer relu3_2",
    ),
    "feature-map": Kind(
        "feature_map",
        "show what single filters extract from a picture (Eq. 1-2, Fig. 3)",
        "photo.jpg --layer relu3_2 --filters 4,17 -o out/",
        filters=True,
    ),
    "random": Kind(
        "random",
        "reallocate the energies of the feature maps at random (Eq. 3-4, Fig. 4)",
        "photo.jpg --layer relu3_1 --draws 3 -o out/",
    ),
    "purposeful": Kind(
        "purposeful",
        "transfer the energies of a style picture (PMCI, Eq. 5, Fig. 5)",
        "photo.jpg --style painting.jpg -o out/",
        layers=False,
        style=True,
    ),
    "gatys": Kind(
        "gatys",
        "transfer style with Gram matrices (Gatys et al. 2016)",
        "photo.jpg --style painting.jpg -o out/",
        layers=False,
        style=True,
    ),
    "rank-match": Kind(
        "rank_match",
        "exchange feature maps by the rank of their energies (2016 code)",
        "photo.jpg --style painting.jpg --layer relu3_1 -o out/",
        style=True,
    ),
    "maximise": Kind(
        "maximise",
        "maximise mean activations, to compare with: no inversion",
        "photo.jpg --layer relu3_2 --filters 4,17 -o out/",
        filters=True,
    ),
}


# The settings that are listed first.
OFTEN = ("long_edge", "steps", "stop", "denoise", "alpha", "beta", "content_layer", "style_layers")
METAVARS: Dict[Any, str] = {int: "N", float: "X", bool: "{true,false}"}
OPTIONS = {  # metavar and help
    "network": ("NAME", "vgg19, resnet18_v1, net-symbol.json, net-0000.params ... (vgg19)"),
    "weights": ("NAME", "vgg19, vgg16-hed, embedded, a file, or auto, the first of these (auto)"),
    "input": ("NAME", "preprocessing outside of the VGG family: imagenet or caffe (imagenet)"),
    "settings": (
        "NAME",
        "preset: code, paper or fast (code for the VGG networks of 2014, else fast)",
    ),
    "seed": ("N", "of the initial picture and of random draws (0)"),
    "init": ("PICTURE", "initial picture: noise, content, or a file (noise)"),
    "ctx": ("DEVICE", "cpu, gpu or gpu(1) (the first GPU that works, else cpu)"),
    "precision": ("NAME", "float32, bfloat16, float16 or auto (float32)"),
    "memory": ("MEMORY", "share of the free memory, or bytes such as 4e9 (0.5)"),
    "mask": ("PICTURE", "its white confines where the texture or style goes"),
}


def add(commands: Any) -> None:
    """Add the commands."""
    for name, kind in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=kind.about,
            description=f"{kind.about[:1].upper()}{kind.about[1:]}.",
            epilog=f"example: fmi {name} {kind.example}",
            usage=f"fmi {name} PICTURE ... {_needed(kind)}[-o OUT] [options]",
        )
        if isinstance(command, Command):
            command.fill = lambda parser, kind=kind: _fill(parser, kind)  # type: ignore[misc]
        command.set_defaults(run=lambda chosen, kind=kind: _run(kind, chosen))


def _needed(kind: Kind) -> str:
    """Return the options that must be given, for the usage."""
    words = [
        ("--layer LAYER ", kind.layers),
        ("--filters FILTERS ", kind.filters),
        ("--style PICTURE ", kind.style),
    ]
    return "".join(word for word, wanted in words if wanted)


def _fill(command: argparse.ArgumentParser, kind: Kind) -> None:
    """Add the options of a command."""
    from fmi import settings  # slow to import

    command.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="a file, a pattern such as 'photos/*.jpg', or skimage:coffee",
    )
    if kind.style:
        command.add_argument(
            "--style",
            action="append",
            required=True,
            metavar="PICTURE",
            help="style picture; several give several results"
            + (", or one with --style-weights" if kind.function in settings.TRANSFERS else ""),
        )
    if kind.function in settings.TRANSFERS:
        command.add_argument(
            "--style-weights",
            metavar="W,W",
            help="mix the styles into one result, with these weights",
        )
        command.add_argument(
            "--strength",
            metavar="S",
            help="from 0 (content only) through .5 (the preset's weights) to 1 (style only)",
        )
    if kind.layers:
        command.add_argument(
            "--layer", required=True, help="such as relu3_2, or relu1_2,relu2_1 for both together"
        )
    if kind.filters:
        command.add_argument("--filters", help="such as 4,17 or 0-15, counted from 0, or all")
    if kind.function == "feature_map":
        command.add_argument(
            "--chain", action="store_true", help="each target from the picture before (2016 code)"
        )
    if kind.function == "random":
        command.add_argument("--draws", type=int, default=1, help="number of pictures (1)")
    _add_output(command)
    add_keywords(command, kind.function)


def _add_output(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("results")
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(),
        metavar="OUT",
        help="a .png, .jpg or .webp file, or a folder for .png files (this folder)",
    )
    group.add_argument(
        "--store", metavar="FOLDER", help="folder of results, which are not computed again"
    )
    group.add_argument("--save-every", type=int, metavar="N", help="a preview every N steps")
    group.add_argument("--gif", action="store_true", help="the descent as a GIF")
    group.add_argument("--mp4", action="store_true", help="the descent as a video")
    group.add_argument("--open", action="store_true", help="show the results when they are there")


def add_keywords(command: argparse.ArgumentParser, function: str) -> None:
    """Add the options of a function of :mod:`fmi.invert` that its keywords have."""
    from typing_extensions import Literal, get_args, get_origin, get_type_hints

    from fmi import settings

    group = command.add_argument_group("network and device")
    for name, (metavar, text) in OPTIONS.items():
        if name != "mask" or function not in settings.UNMASKED:
            group.add_argument(f"--{name}", metavar=metavar, help=text)
    group.add_argument(
        "--preserve-color", action="store_const", const=True, help="keep the content's colours"
    )
    own = [*settings.overridable()]
    if function in settings.TRANSFERS:
        own += [n for n in settings.overridable(settings.Transfer) if n not in own]
    title = f"settings (in brackets, those of the preset {settings.DEFAULT!r})"
    group = command.add_argument_group(title)
    kinds = {**get_type_hints(settings.Transfer), **get_type_hints(settings.Settings)}
    preset = settings.preset(settings.DEFAULT)
    section = getattr(preset, function, None)
    texts = {**settings.about(settings.Transfer), **settings.about(settings.Settings)}
    for name in sorted(own, key=lambda name: name not in OFTEN):
        value = getattr(section, name, None)
        value = getattr(preset, name) if value is None else value
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        words = get_args(kinds[name]) if get_origin(kinds[name]) is Literal else ()
        metavar = "{" + ",".join(words) + "}" if words else METAVARS.get(kinds[name], "NAME")
        text = f"{texts[name][0].lower()}{texts[name][1:]} ({shown})"
        group.add_argument(f"--{name.replace('_', '-')}", help=text, metavar=metavar)


def options_of(chosen: argparse.Namespace) -> Dict[str, Any]:
    """Return the keywords for :mod:`fmi.invert` that were given."""
    from typing_extensions import Annotated

    from fmi import checks, settings

    Seed = Annotated[checks.Seed, checks.FromText]
    names = [
        *OPTIONS,
        "preserve_color",
        "strength",
        *settings.overridable(),
        *settings.overridable(settings.Transfer),
    ]
    given = vars(chosen)
    found: Dict[str, Any] = {name: given[name] for name in names if given.get(name) is not None}
    if "seed" in found:
        found["seed"] = checks.checked("seed", found["seed"], Seed)
    if given.get("style_weights") is not None:
        found["style_weights"] = given["style_weights"]
    if "style_layers" in found:
        found["style_layers"] = found["style_layers"].split(",")
    if chosen.store is not None:
        from fmi.runs.store import Store

        if not chosen.store:
            raise InputError("--store names no folder")

        found["store"] = Store(chosen.store)
    return found


def sources(names: Sequence[str]) -> List[Path]:
    """Return the files of pictures that are named, or that patterns match.

    Raises
    ------
    InputError
        If a file does not exist, or no file matches a pattern.
    """
    from fmi import pictures
    from fmi.sources import table

    found: List[Path] = []
    for name in names:
        if glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110, never an error
            matching = sorted(path for path in glob.glob(name) if Path(path).is_file())  # noqa: PTH207
            if not matching:
                raise InputError(f"no file matches {name!r}")
            found += map(Path, matching)
        else:
            found.append(pictures.find(name, table.folders("pictures")))
    return found


@dataclass(frozen=True)
class _Piece:
    """One call of a function of fmi.invert: its arguments, and the names of its results."""

    arguments: Tuple[Any, ...]
    names: Tuple[str, ...]


def _pieces(kind: Kind, chosen: argparse.Namespace, alone: bool) -> Iterator[_Piece]:
    """Yield the calls of a command; with `alone`, each of them has one result at a time."""
    from fmi import checks
    from fmi.call import places_of
    from fmi.runs.panels import distinct

    contents = sources(chosen.pictures)
    labels = distinct([path.stem for path in contents])
    layers = _layers(chosen) if kind.layers else []
    styles = sources(chosen.style) if kind.style else []
    for content, label in zip(contents, labels):
        if kind.style:
            if getattr(chosen, "style_weights", None) is not None:
                own = "_".join(path.stem for path in styles)
                yield _Piece((content, styles), (f"{label}_{own}_{kind.function}",))
                continue
            for style, own in zip(styles, distinct([path.stem for path in styles])):
                arguments = (content, style, layers) if kind.layers else (content, style)
                yield _Piece(arguments, ("_".join([label, own, *layers, kind.function]),))
            continue
        if kind.filters:
            numbers = checks.checked("filters", chosen.filters, Optional[checks.Numbers])
            names, filters = places_of(layers, None, numbers)
            chain = getattr(chosen, "chain", False)
            inverts = kind.function == "feature_map"
            words = [label, *names, *([] if inverts else [kind.function]), *["chain"] * chain]
            stem = "_".join(words)
            more: Tuple[Any, ...] = (chain,) if inverts else ()
            groups = [[n] for n in filters] if alone and filters and not chain else [filters]
            for group in groups:
                yield _Piece(
                    (content, names, group, *more), tuple(f"{stem}_filter{n}" for n in group)
                )
        elif kind.function == "random":
            stem = f"{label}_{'_'.join(layers)}"
            draws = checks.checked("draws", chosen.draws, checks.Count)
            yield _Piece((content, layers, draws), tuple(f"{stem}_draw{n}" for n in range(draws)))
        else:
            yield _Piece((content, layers), (f"{label}_{'_'.join(layers)}_{kind.function}",))


def _layers(chosen: argparse.Namespace) -> List[str]:
    """Return the layers that are given: relu3_2:4,17 is one layer."""
    return [chosen.layer] if ":" in chosen.layer else chosen.layer.split(",")


def is_file(out: Path) -> bool:
    """Return whether a path of results is that of one picture, and not of a folder.

    Raises
    ------
    InputError
        If it is that of a picture in a format that is only read.
    """
    from fmi import pictures

    one = out.suffix.lower() in (*pictures.SAVED, *pictures.SUFFIXES) and not out.is_dir()
    return one and bool(pictures.saved_as(out))


def given_pictures(chosen: argparse.Namespace, names: Sequence[str]) -> List[Path]:
    """Return the files of pictures that are named, and of those that options name, if any."""
    options = [getattr(chosen, name, None) for name in ("init", "mask")]
    return [*sources(names), *map(Path, filter(None, options))]


def check_kept(out: Path, kept: Sequence[Path], written: Sequence[Path]) -> None:
    """Check that no result replaces a file that is to be kept.

    Parameters
    ----------
    out
        The path that is given for the results.
    kept
        Files to be kept, if they are there.
    written
        The files of the results.

    Raises
    ------
    InputError
        If one does.
    """
    from fmi.sources import table

    def identity(path: Path) -> Tuple[int, int]:
        found = path.stat()
        return found.st_dev, found.st_ino

    files = {identity(path): path for path in filter(table.is_file, kept)}
    for new in filter(table.is_file, written):
        if identity(new) in files:
            old = files[identity(new)]
            raise InputError(f"-o {out} would replace {old}; choose another name")


def loaded(options: Dict[str, Any], layers: Sequence[str]) -> Network:
    """Load the network that the options name, which it takes the place of in them."""
    from fmi.networks import catalogue

    given = {name: options.pop(name) for name in ("network", "weights", "input") if name in options}
    options["network"] = network = catalogue.load(**given, layers=layers)
    return network


def _name_all_filters(chosen: argparse.Namespace, options: Dict[str, Any]) -> None:
    """Write out which filters are all, because their results are named before they are computed."""
    from fmi.call import ALL, places_of

    layers, _ = places_of(_layers(chosen), None, ALL)  # refuses filters with a layer
    network = loaded(options, layers)
    chosen.filters = f"0-{min(network.layer(name).channels for name in layers) - 1}"


def _named(pieces: Sequence[_Piece]) -> List[_Piece]:
    """Return calls no two of whose results have the same name."""
    from fmi.runs.panels import distinct

    names = iter(distinct([name for piece in pieces for name in piece.names]))
    return [replace(piece, names=tuple(next(names) for _ in piece.names)) for piece in pieces]


def _run(kind: Kind, chosen: argparse.Namespace) -> int:
    from fmi import files, invert
    from fmi.call import ALL
    from fmi.cli.film import Film

    options = options_of(chosen)
    filmed = chosen.gif or chosen.mp4 or chosen.save_every is not None
    if filmed and chosen.store is not None:
        raise InputError(
            "--gif, --mp4 and --save-every show a descent, which a stored result lacks:"
            " omit --store"
        )
    if filmed and kind.function == "random" and chosen.draws > 1:
        raise InputError("--gif, --mp4 and --save-every show one draw: omit --draws")
    if kind.filters and chosen.filters == ALL:
        _name_all_filters(chosen, options)
    pieces = _named(list(_pieces(kind, chosen, filmed)))
    number = sum(len(piece.names) for piece in pieces)
    one = is_file(chosen.out)
    if one and number > 1:
        raise InputError(
            f"-o {chosen.out} is one file, but there are {number} results: name a folder"
        )
    suffix = chosen.out.suffix if one else ".png"
    folder = chosen.out.parent if one else chosen.out
    names = [chosen.out.stem] if one else [name for piece in pieces for name in piece.names]
    suffixes = [suffix, *[".gif"] * chosen.gif]
    results = [folder / f"{name}{end}" for name in names for end in suffixes]
    given = given_pictures(chosen, [*chosen.pictures, *(chosen.style if kind.style else [])])
    check_kept(chosen.out, given, results)
    files.prepare(folder)
    written: List[Path] = []
    diverged: List[str] = []
    function: Callable[..., Any] = getattr(invert, kind.function)
    for piece in pieces:
        stems = [folder / name for name in (names if one else piece.names)]
        film = Film(stems, chosen.save_every, chosen.gif, chosen.mp4) if filmed else None
        found = (
            function(*piece.arguments, **options, callback=film)
            if film
            else function(*piece.arguments, **options)
        )
        finished = found if isinstance(found, list) else [found]
        for inversion, stem in zip(finished, stems):
            if inversion.stopped == "interrupted":
                raise KeyboardInterrupt
            if inversion.stopped == "diverged":
                diverged.append(stem.name)
                continue
            path = stem.with_name(f"{stem.name}{suffix}")
            inversion.save(path)
            written.append(path)
            sys.stdout.write(f"{path}\n")
        for path in film.save(finished) if film else ():
            sys.stdout.write(f"{path}\n")
        if len(finished) < len(stems) and not (diverged and getattr(chosen, "chain", False)):
            raise KeyboardInterrupt  # Ctrl-C before some were started
    if chosen.open:
        import webbrowser

        for path in written:
            webbrowser.open(path.absolute().as_uri())
    if diverged:
        raise diverging(diverged, number)
    return 0


def diverging(names: Sequence[str], number: int) -> InputError:
    """Return the error for some of a number of results, which have diverged."""
    told = f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
    which = told if number == 1 else f"{len(names)} of {number} pictures ({told})"
    return InputError(f"{which} diverged: reduce --learning-rate or --clip")
