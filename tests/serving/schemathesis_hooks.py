"""Headers that a document does not name are allowed in HTTP; schemathesis expects them to be refused."""

import schemathesis


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    return not any(name.lower().startswith("x-schemathesis-unknown") for name in case.headers or {})


@schemathesis.hook
def map_case(_: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:
    """A state is what the service has signed; none that is made up is one, whatever the schema of a string allows.

    Not `map_body`: the coverage phase puts a schema's least and greatest strings in after it.
    """
    if isinstance(case.body, dict) and isinstance(case.body.get("state"), str):
        case.body = {**case.body, "state": None}
    return case
