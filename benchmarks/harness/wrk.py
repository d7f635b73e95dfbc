"""Closed-loop load by wrk, which is in every distribution and takes little of the machine itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

from harness.models import Body

_SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
{headers}
done = function(summary, latency, requests)
   local failed = summary.errors
   local names = {{"requests", "duration_us", "errors", "latency_us_p50", "latency_us_p99"}}
   local numbers = {{summary.requests, summary.duration,
      failed.status + failed.connect + failed.read + failed.write + failed.timeout,
      latency:percentile(50), latency:percentile(99)}}
   local parts = {{}}
   for place, name in ipairs(names) do parts[place] = string.format('"%s": %d', name, numbers[place]) end
   io.write("\\n{{" .. table.concat(parts, ", ") .. "}}\\n")
end
"""


class Load(msgspec.Struct, frozen=True):
    """What wrk saw."""

    requests: int
    duration_us: int
    errors: int
    latency_us_p50: int
    latency_us_p99: int

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.requests / self.duration_us * 1e6


def run(url: str, body: Body, *, connections: int, seconds: int, folder: Path) -> Load:
    """Ask as fast as answers come, on so many connections. Ends the program where there is no wrk, or an error."""
    load = ask(url, body, connections=connections, seconds=seconds, folder=folder)
    if load.errors:
        raise SystemExit(f"{load.errors} of {load.requests} requests failed; figures of errors are worth nothing")
    return load


def ask(url: str, body: Body, *, connections: int, seconds: int, folder: Path) -> Load:
    """As `run`, but whoever calls judges the errors."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("wrk is missing: install it (on Debian, apt-get install wrk) and run this again")
    (folder / "body").write_bytes(body.content)
    headers = "\n".join(f'wrk.headers["{name}"] = "{text}"' for name, text in body.headers().items())
    (folder / "post.lua").write_text(_SCRIPT.format(body=folder / "body", headers=headers))
    command = [path, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(folder / "post.lua"), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return msgspec.json.decode(output.strip().rpartition("\n")[2], type=Load)
