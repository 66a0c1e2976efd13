"""What is printed about services that run."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from client import PredictionResult
from client.errors import DespachoError
from deploy import access
from deploy.prediction import SAMPLE
from deploy.stack import DEFAULT_ADDRESS
from deploy.state import ROOT


def show_prediction(result: PredictionResult) -> None:
    """Say what the sample photo was taken for."""
    best = result.labels[0]
    print(
        f"  {SAMPLE.relative_to(ROOT)}: {best.label} ({best.score:.0%}) by {result.model}"
        f" in {result.timing.total_s * 1000:.0f} ms"
    )


def show_commands(address: str) -> None:
    """Print commands to try, for the shell of a person in the checkout."""
    tools = Path(sys.executable).parent
    photo = shown(SAMPLE)
    server = "" if address == DEFAULT_ADDRESS else f" --server {shlex.quote(address)}"
    print(f"\nTry:\n  {shown(tools / 'despacho')} predict{server} {photo}")
    # Ours is installed only where there is one; a person may have another.
    own = tools / "grpcurl"
    if program := shown(own) if own.exists() else shutil.which("grpcurl"):
        body = f'''printf '{{"image":"%s"}}' "$(base64 < {photo} | tr -d '\\n')"'''
        options = access.grpcurl_options(os.environ)
        call = f"{program} {options} -d @ {address} prediction.v1.PredictionService/Predict"
        print(f"  {body} | {call}")


def show_health(address: str) -> bool:
    """Print what the front-end says of itself; return whether it can answer."""
    try:
        with access.client(address) as client:
            health = client.health("readiness", timeout_s=3)
            print(f"  readiness  {health.value}")
            models = client.models(timeout_s=3)
    except DespachoError as error:
        print(f"  readiness  unknown: {error}")
        return False
    for model in models:
        print(
            f"  model      {model.name} {model.version}: {model.state.value},"
            f" workers: {model.live_workers}, images waiting: {model.queue_depth}"
        )
    return any(model.live_workers for model in models)


def without_password(url: str) -> str:
    """Return the address of Redis as a terminal may show it."""
    secret = urlsplit(url).password
    return url.replace(f":{secret}@", ":***@", 1) if secret else url


def shown(path: Path) -> str:
    """Return a path as short as it works from the checkout, safe in a shell."""
    inside = path.is_relative_to(ROOT)
    return shlex.quote(str(path.relative_to(ROOT) if inside else path))


def show_web_command(address: str, model: str) -> None:
    """Print what labels a photo over HTTP, and where the page is."""
    options = access.curl_options(os.environ)
    photo = shlex.quote(f"@{os.path.relpath(SAMPLE, ROOT)}")
    url = f"http://{address}/v1/models/{model}:predict"
    print(f"  curl{options} --data-binary {photo} {url}\n  open http://{address} in a browser")
