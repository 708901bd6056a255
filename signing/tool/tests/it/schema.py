"""Judges definition.schema.json: every shipped definition passes, every golden case is told as it says."""

import json
import pathlib
import sys
import tomllib

from jsonschema import Draft202012Validator, FormatChecker

schema = json.load(sys.stdin)
folder = pathlib.Path(sys.argv[1])
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=FormatChecker(("regex",)))


def verdict(text):
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return "unreadable"
    # A moment of TOML is a text to a schema.
    document = json.loads(json.dumps(document, default=lambda moment: moment.isoformat()))
    return "refuses" if list(validator.iter_errors(document)) else "accepts"


def case_text(base, case):
    if case.get("whole"):
        return case["to"]
    if case.get("fill"):
        return base.replace(case["from"], "# " + "a" * case["fill"] + "\n" + case["from"], 1)
    assert case["from"] in base, case
    return base.replace(case["from"], case["to"], 1)


golden = tomllib.loads((folder / "../src/definition/lint/golden.toml").read_text())
shipped = sorted(folder.glob("Muster-*.toml"))
assert len(shipped) == 10, shipped
wrong = [f"{path.name}: {verdict(path.read_text())}" for path in shipped if verdict(path.read_text()) != "accepts"]
wrong += [f"{path.name}: no #:schema line" for path in shipped if not path.read_text().startswith("#:schema ./definition.schema.json\n")]
if verdict(golden["base"]) != "accepts":
    wrong.append("the base of golden.toml")
for case in golden["case"]:
    found = verdict(case_text(golden["base"], case))
    if found != case["schema"]:
        wrong.append(f"{case['rule']}, {case.get('to')!r}: {found}, wanted {case['schema']}")
print("\n".join(wrong))
sys.exit(1 if wrong else 0)
