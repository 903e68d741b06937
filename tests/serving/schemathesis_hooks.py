"""Headers that a document does not name are allowed in HTTP; schemathesis expects them to be refused."""

import schemathesis


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    return not any(name.lower().startswith("x-schemathesis-unknown") for name in case.headers or {})
