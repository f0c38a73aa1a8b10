"""What schemathesis cannot know of dispatchd by its document alone."""

import json
import os
import random

import schemathesis
from schemathesis import GenerationMode

DRIVERS = os.environ["CONFORMANCE_DRIVERS"].split(",")
STATUSES = os.environ["CONFORMANCE_STATUSES"]
# Long polls are waited for no longer than this.
WAIT_MS_MAX = 20


@schemathesis.hook
def before_call(context, case, **kwargs):
    shorten_wait(case)
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if isinstance(case.body, (dict, list)):
        case.body = with_whole_numbers(case.body)
    if case.operation.label == "POST /v1/dispatch/offer":
        know_drivers(case)


@schemathesis.hook
def after_call(context, case, response):
    operation = case.operation.definition.raw.get("operationId", case.operation.label)
    with open(STATUSES, "a") as statuses:
        statuses.write(f"{operation} {response.status_code}\n")


def shorten_wait(case):
    try:
        wait_ms = int((case.query or {}).get("wait_ms"))
    except (TypeError, ValueError):
        return
    if WAIT_MS_MAX < wait_ms <= 60_000:
        case.query["wait_ms"] = WAIT_MS_MAX


def with_whole_numbers(value):
    """6.0 is an integer in JSON Schema; the document says in words that whole numbers are written as digits."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: with_whole_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(item) for item in value]
    return value


def know_drivers(case):
    """Half of the offers go to drivers who are there, or nobody could accept one."""
    body = case.body
    if not isinstance(body, dict):
        return
    chance = random.Random(json.dumps(body, sort_keys=True, default=str))
    if chance.random() < 0.5:
        driver = chance.choice(DRIVERS)
        if isinstance(body.get("driver_id"), str):
            body["driver_id"] = driver
        elif isinstance(body.get("candidates"), list) and body["candidates"]:
            body["candidates"][0] = driver
