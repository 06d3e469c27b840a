"""Print what runs here: versions, CPU, threads, GPU, and which implementation each op uses."""

import os

from ..output import add_json_argument, write_json

HELP = "say which versions, CPU features and kernels are in use"


def add_arguments(parser):
    add_json_argument(parser)


def run(args):
    from ..implementation import implementation
    from ..machine import machine_stamp

    result = {"command": "env", "machine": machine_stamp(), "implementation": implementation()}
    write_json(args.json, result)
    _print(result["machine"], result["implementation"])
    return 0


def _print(machine, runs):
    from ..implementation import FORCE_VARIABLE
    from ..table import format_pairs

    packages = {name: version or "not installed" for name, version in machine["packages"].items()}
    cpu, core = machine["cpu"], runs["core"]
    pairs = list(packages.items())
    pairs += [
        ("python", f"{machine['python']} on {machine['os']}"),
        ("CPU", f"{cpu['model']} ({cpu['architecture']}), {cpu['cores']} cores"),
        ("CPU features", " ".join(cpu["features"]) or "unknown"),
        ("threads", machine["threads"]),
        ("GPU", "\n".join(machine["gpu"]) or "none"),
        ("CPU kernels", runs["summary"]),
        ("GPU kernels", runs["gpu"]),
    ]
    if core["available"]:
        built = core["versions"]
        pairs += [
            ("built with", f"C++ compiler {built['compiler']}, pybind11 {built['pybind11']}"),
            ("ISA in use", core["active_isa"]),
            ("ISAs here", " ".join(core["available_isas"])),
        ]
    else:
        pairs.append(("ISA in use", f"unknown: tokprune_kernels._core is missing ({core['reason']})"))
    pairs.append(("ISA forced", os.environ.get(FORCE_VARIABLE, f"no ({FORCE_VARIABLE} is not set)")))
    print(format_pairs(pairs))
    print("\nops on CPU tensors")
    print(format_pairs(list(runs["ops"].items()), indent="  "))
