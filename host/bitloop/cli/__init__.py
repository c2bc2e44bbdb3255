"""The command line: the only place that prints or exits."""

__all__ = ["main"]


def main() -> None:
    """Run ``bitloop``; exits with one of the codes that ``bitloop --help`` lists."""
    from bitloop.cli.app import app  # noqa: PLC0415 - importing the package costs nothing

    app(prog_name="bitloop")
