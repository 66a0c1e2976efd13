"""Makes the tables of settings in docs/operations.md.

A table stands between `<!-- settings: NAME -->` and `<!-- end -->`, and has what
the settings class says of itself: its fields, their limits and docstrings.
"""

from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from deploy.generated_page import in_one_line, table
from deploy.state import ROOT
from gateway.settings import GatewaySettings
from server.settings import ServerSettings
from telemetry.setting_names import variable
from worker.settings import WorkerSettings

PAGE: Final = ROOT / "docs" / "operations.md"
SERVICES: Final[dict[str, type[BaseSettings]]] = {
    "server": ServerSettings,
    "worker": WorkerSettings,
    "gateway": GatewaySettings,
}
MIB: Final = 1024 * 1024
LIMITS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def parts() -> dict[str, str]:
    """Return what stands in the page, by name."""
    return {f"settings: {name}": settings_table(each) for name, each in SERVICES.items()}


def settings_table(settings: type[BaseSettings]) -> str:
    """Describe every setting, one row each."""
    rows = []
    for name, field in settings.model_fields.items():
        if not field.description:
            raise ValueError(f"{settings.__name__}.{name} has no docstring")
        rows.append(
            (
                f"`{variable(settings, name, field)}`",
                default(field),
                allowed(field),
                in_one_line(field.description),
            )
        )
    return table(("variable", "default", "allowed", "meaning"), rows)


def default(field: FieldInfo) -> str:
    """Show the default; big sizes also in MiB."""
    value = field.default
    if value == "":
        return "empty"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"`{value}` ({value // MIB} MiB)"
    return f"`{value}`"


def allowed(field: FieldInfo) -> str:
    """Show the limits or the choices of a value."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation) if choice)
    limits = (
        f"{sign} {getattr(limit, attribute)}"
        for limit in field.metadata
        for attribute, sign in LIMITS.items()
        if hasattr(limit, attribute)
    )
    return ", ".join(limits)
