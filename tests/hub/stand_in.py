"""A stand-in for the Hub: repositories with commits over HTTP, uploads, and every fault that a network has.

It speaks what huggingface_hub and datasets ask for: repository info, tree, paths-info, resolve with ranges and
etags, create, preupload, LFS-style upload, commit. A test plants faults by a part of the path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_standin0000000000000000000000000000"
#: Files that go the way of large ones.
LARGE = (".safetensors", ".parquet", ".bin", ".pt", ".png")


@dataclass
class Repo:
    """A repository: commits by hash, branches by name."""

    name: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *, deleted: tuple[str, ...] = (), ref: str = "main") -> str:
        """A new commit over the newest; returns its hash."""
        before = self.commits.get(self.refs.get(ref, ""), {})
        now = {name: data for name, data in {**before, **files}.items() if name not in deleted}
        text = repr(
            (self.name, len(self.commits), sorted((n, hashlib.sha1(d).hexdigest()) for n, d in now.items()))
        )
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.refs[ref] = now, sha
        return sha

    def at(self, revision: str) -> str | None:
        """The commit of a branch or a hash."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return self.commits[self.refs["main"]]


@dataclass
class Fault:
    """What goes wrong with requests whose path holds `part`, `times` times.

    Args:
        part: of method and path, such as "GET /org/name/resolve".
        times: how often; -1 is always.
        status: answered instead of the file.
        after: bytes after which the connection is cut.
        delay: seconds before anything is answered.
    """

    part: str
    times: int = 1
    status: int | None = None
    after: int | None = None
    delay: float = 0.0


class StandIn:
    """The server's state. `requests` holds (method, path, headers) of all that came in."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.moved: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.large: dict[str, bytes] = {}
        self.url = ""

    def repo(
        self, name: str, files: dict[str, bytes] | Path | None = None, kind: str = "model", **facts: Any
    ) -> Repo:
        """A new repository with files, or with a folder's files."""
        made = self.repos[kind, name] = Repo(name, kind, **facts)
        if isinstance(files, Path):
            folder = files
            files = {
                p.relative_to(folder).as_posix(): p.read_bytes()
                for p in sorted(folder.rglob("*"))
                if p.is_file()
            }
        made.commit(files or {})
        return made

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose method and path hold a part."""
        return [headers for method, path, headers in self.requests if part in f"{method} {path}"]


class Handler(BaseHTTPRequestHandler):
    """One request. Each connection is closed after it: what is tested is not keep-alive."""

    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        self.close_connection = True
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cut: int | None = None
        for fault in self.hub.faults:
            if fault.times and fault.part in f"{self.command} {path}":
                fault.times -= 1
                if fault.delay:
                    Event().wait(fault.delay)  # not time.sleep, which the tests shorten
                if fault.status is not None:
                    return self.say({"error": "planted"}, fault.status)
                self.cut = fault.after
                break
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return method(self, **found.groupdict())
        return self.say({"error": f"no such route: {self.command} {path}"}, 404)

    # --- answers ---

    def say(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})

    def refuse(self, status: int, code: str, message: str) -> None:
        self.say({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})

    def send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # whoever asked may have gone
                self.wfile.write(data if self.cut is None else data[: self.cut])

    # --- repositories ---

    def find(self, kind: str, name: str, *, content: bool = False) -> Repo | None:
        """The repository, or None when it was refused; `content` is what gated ones keep back."""
        kind = kind.strip("/").rstrip("s") or "model"
        given = self.headers.get("Authorization", "")
        if given and given != f"Bearer {TOKEN}":
            self.say(
                {"error": "Invalid credentials in Authorization header"},
                401,
                **{"X-Error-Message": "Invalid credentials in Authorization header"},
            )
            return None
        if name in self.hub.moved:
            new = self.path.replace(name, self.hub.moved[name], 1)
            self.send(b"", 307, {"Location": new})
            return None
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not given):
            self.refuse(401, "RepoNotFound", "Repository not found")
            return None
        if repo.gated and content and not given:
            self.refuse(401, "GatedRepo", f"Access to {kind} {name} is restricted.")
            return None
        return repo

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        if (repo := self.find(kind, name)) is None:
            return None
        sha = repo.at(revision or "main")
        if sha is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.say(
            {
                "_id": "0",
                "id": repo.name,
                "modelId": repo.name,
                "sha": sha,
                "private": repo.private,
                "gated": "auto" if repo.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(repo.commits[sha])],
            }
        )

    def entries(self, repo: Repo, sha: str) -> list[dict[str, Any]]:
        files = repo.commits[sha]
        folders = {"/".join(name.split("/")[:k]) for name in files for k in range(1, name.count("/") + 1)}
        listed: list[dict[str, Any]] = [
            {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
            for name in sorted(folders)
        ]
        for name, data in sorted(files.items()):
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": etag(name, data)}
            if name.endswith(LARGE):
                entry["oid"] = hashlib.sha1(data).hexdigest()
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                }
            listed.append(entry)
        return listed

    def tree(self, kind: str, name: str, revision: str, path: str | None = None) -> None:
        if (repo := self.find(kind, name)) is None:
            return None
        if (sha := repo.at(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        start = f"{path.strip('/')}/" if path and path.strip("/") else ""
        found = [
            entry
            for entry in self.entries(repo, sha)
            if entry["path"].startswith(start) and (deep or "/" not in entry["path"][len(start) :])
        ]
        if start and not found:
            return self.refuse(404, "EntryNotFound", f"{path} does not exist on {revision!r}")
        return self.say(found)

    def paths(self, kind: str, name: str, revision: str) -> None:
        if (repo := self.find(kind, name)) is None:
            return None
        if (sha := repo.at(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        text = self.body.decode()
        wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        return self.say([entry for entry in self.entries(repo, sha) if entry["path"] in wanted])

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        if (repo := self.find(kind, name, content=True)) is None:
            return None
        if (sha := repo.at(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repo.commits[sha].get(path)
        if data is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag(path, data)}"', "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{etag(path, data)}"', "X-Linked-Size": str(len(data))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.send(data, 200, headers)
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        if first >= len(data):
            return self.send(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
        part = data[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return self.send(part, 206, headers)

    # --- uploads ---

    def may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.say({"error": "Invalid username or password."}, 401)
        return False

    def create(self) -> None:
        if not self.may_write():
            return None
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        address = f"{self.hub.url}/{name}"
        if ("model", name) in self.hub.repos:
            return self.say({"error": "You already created this model repo", "url": address}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repo(name, {".gitattributes": b""}, private=bool(private))
        return self.say({"url": address, "name": name, "id": "0"})

    def preupload(self, name: str) -> None:
        if not self.may_write():
            return
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(self.body)["files"]
        ]
        self.say({"files": files})

    def batch(self, name: str) -> None:
        if not self.may_write():
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in self.hub.large:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/lfs/{asked['oid']}/verify", "header": {}},
                }
            objects.append(entry)
        self.say({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.say({"error": "content does not match"}, 422)
        self.hub.large[oid] = self.body
        return self.say({})

    def verify(self, oid: str) -> None:
        asked = json.loads(self.body)
        self.say({}, 200 if len(self.hub.large.get(oid, b"")) == asked["size"] else 422)

    def commit(self, name: str, revision: str) -> None:
        if not self.may_write():
            return
        files, deleted = {}, []
        for line in self.body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif row["key"] == "deletedFile":
                deleted.append(value["path"])
        sha = self.hub.repos["model", name].commit(files, deleted=tuple(deleted), ref=revision)
        self.say({"success": True, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def valid(self) -> None:
        self.say({"errors": [], "warnings": []})


def etag(path: str, data: bytes) -> str:
    """As the Hub has it: git's hash of a small file, sha256 of a large one."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_KIND, _NAME, _REVISION = r"(?P<kind>models|datasets)", r"(?P<name>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
ROUTES = [
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.valid),
    (rf"POST /api/models/{_NAME}/preupload/[^/]+", Handler.preupload),
    (rf"POST /api/models/{_NAME}/commit/{_REVISION}", Handler.commit),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /lfs/(?P<oid>\w+)", Handler.store),
    (r"POST /lfs/(?P<oid>\w+)/verify", Handler.verify),
    (rf"GET /api/{_KIND}/{_NAME}", Handler.info),
    (rf"GET /api/{_KIND}/{_NAME}/revision/{_REVISION}", Handler.info),
    (rf"GET /api/{_KIND}/{_NAME}/tree/{_REVISION}(?P<path>/.*)?", Handler.tree),
    (rf"POST /api/{_KIND}/{_NAME}/paths-info/{_REVISION}", Handler.paths),
    (rf"(?:GET|HEAD) /(?P<kind>datasets/|){_NAME}/resolve/{_REVISION}/(?P<path>.+)", Handler.resolve),
]


@contextmanager
def running() -> Iterator[StandIn]:
    """A stand-in on a free port of this machine, until the block ends."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
