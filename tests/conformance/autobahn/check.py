#!/usr/bin/env python3
"""Runs Autobahn's fuzzing client against the echo server and compares each case with expected.json.

check.py ECHO_PROGRAM SUITE [CASES]: the server's program, the command that runs `wstest`, and the cases (all).
Fails when a case is not as expected, when one is missing, and when the run takes too long.
"""

import collections
import fnmatch
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

# One run takes about a minute; this bounds a hang.
SECONDS_MAX = 600
AGENT = "dispatchd"
EXPECTED = pathlib.Path(__file__).with_name("expected.json")
# Where the suite's own reports go when something is not as expected.
REPORTS = pathlib.Path("target/autobahn")


def main():
    echo_program, suite = sys.argv[1], shlex.split(sys.argv[2])
    cases = sys.argv[3:] or ["*"]
    expected = json.loads(EXPECTED.read_text())
    with tempfile.TemporaryDirectory(prefix="dispatchd-autobahn-") as scratch:
        results = run(echo_program, suite, cases, expected, pathlib.Path(scratch))
        problems = compare(results, expected, whole=cases == ["*"])
        if problems:
            shutil.copytree(scratch, REPORTS, dirs_exist_ok=True)
    show(results)
    for problem in problems:
        print(f"FAILED  {problem}")
    if problems:
        print(f"what each case saw: {REPORTS}; one again: tests/conformance/run autobahn CASE")
    sys.exit(1 if problems else 0)


def run(echo_program, suite, cases, expected, scratch):
    # The server ends when its standard input does: also when this program is killed.
    with subprocess.Popen([echo_program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as echo:
        try:
            address = echo.stdout.readline().strip()
            settings = {
                "outdir": str(scratch),
                "servers": [{"agent": AGENT, "url": f"ws://{address}", "protocols": ["dispatch.v1"]}],
                "cases": cases,
                "exclude-cases": list(expected["excluded"]),
                "exclude-agent-cases": {},
            }
            spec = scratch / "spec.json"
            spec.write_text(json.dumps(settings))
            with open(scratch / "client.log", "w+") as log:
                command = [*suite, "-m", "fuzzingclient", "-s", str(spec)]
                status = subprocess.run(command, stdout=log, stderr=log, timeout=SECONDS_MAX, cwd=scratch).returncode
                if status != 0 or echo.poll() is not None:
                    log.seek(0)
                    sys.exit(f"{log.read()[-4000:]}\nthe client ended with {status}, the server with {echo.poll()}")
        finally:
            echo.stdin.close()
            echo.wait(timeout=10)
    return json.loads((scratch / "index.json").read_text()).get(AGENT, {})


def compare(results, expected, whole):
    problems = []
    for case, result in results.items():
        behavior, reason = expected["not_ok"].get(case, ("OK", ""))
        seen = (result["behavior"], result["behaviorClose"])
        if seen != (behavior, behavior):
            problems.append(f"{case}: {seen[0]}, close {seen[1]}; expected {behavior} {reason}")
    if not results:
        problems.append("there is no such case")
    if whole and len(results) != expected["cases"]:
        problems.append(f"{len(results)} cases instead of {expected['cases']}")
    if any(fnmatch.fnmatch(case, pattern) for case in results for pattern in expected["excluded"]):
        problems.append("an excluded case was run")
    return problems


def show(results):
    sections = collections.defaultdict(collections.Counter)
    for case, result in results.items():
        sections[int(case.split(".")[0])][result["behavior"]] += 1
    for section, counts in sorted(sections.items()):
        print(f"section {section:2}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}")
    total = collections.Counter(result["behavior"] for result in results.values())
    print(f"{len(results)} cases: {', '.join(f'{count} {name}' for name, count in sorted(total.items()))}")


if __name__ == "__main__":
    main()
