"""The ``s2vc`` command: the table of its commands, and how errors end it. The commands are the ``cli_*.py``.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done; 1 some sources
failed, could be compressed only in part, miss the target asked for or (``status``) are not finished, the
others are done; 2 an option, source list or cluster the job cannot run with; 3 an archive or model that
cannot be used; 4 a store or cluster that failed.
"""

from __future__ import annotations

import os
import sys
import warnings

import typer

from s2vc_model.errors import ModelError
from s2vc_ray import (
    cli_audit,
    cli_compress,
    cli_decode,
    cli_extract,
    cli_inspect,
    cli_model,
    cli_policy,
    cli_reencode,
    cli_verify,
    cli_view,
)
from s2vc_ray.errors import ArchiveError, ConfigError, S2vcError

# Two spinning torch threads on two cores are many times slower than one; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The AV1 encoder describes itself at length on standard error; only its errors matter.
os.environ.setdefault("SVT_LOG", "1")
# Said by a library that the codec's dependencies import; nothing a user could do about it.
warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated", category=FutureWarning)

app = typer.Typer(
    help="Compress video archives with S2VC. The result is an access copy, not a preservation master.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
manifest_app = typer.Typer(help="Read and compact manifests.", no_args_is_help=True)

for command in (
    cli_compress.compress,
    cli_reencode.reencode,
    cli_decode.decompress,
    cli_decode.export,
    cli_decode.frame,
    cli_extract.extract,
    cli_view.view,
    cli_inspect.info,
    cli_inspect.status,
    cli_inspect.gc,
    cli_verify.verify,
    cli_verify.bag,
    cli_verify.events,
    cli_audit.audit,
):
    app.command()(command)
manifest_app.command()(cli_inspect.show)
manifest_app.command()(cli_audit.compact)
app.add_typer(manifest_app, name="manifest")
app.add_typer(cli_model.model_app, name="model")
app.add_typer(cli_policy.policy_app, name="policy")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and turn errors into one line on standard error and an exit code."""
    try:
        app(arguments)
    except ConfigError as error:
        _die(error, 2)
    except (ArchiveError, ModelError) as error:
        _die(error, 3)
    except S2vcError as error:
        _die(error, 4)


def _die(error: Exception, code: int) -> None:
    typer.echo(f"s2vc: {type(error).__name__}: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
