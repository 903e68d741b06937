"""The loader that MLflow calls for versions registered before it moved to convoy.tracking.pyfunc."""

from convoy.tracking.pyfunc import _load_pyfunc as _load_pyfunc
