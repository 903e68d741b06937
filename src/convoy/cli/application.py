"""The typer application that all verbs belong to, and the options that several of them have"""

from typing import Annotated

import typer

HELP = "The verbs of `python -m convoy`, from the first look at data of your own to who serves."
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the prediction service.")]
MlflowPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)
