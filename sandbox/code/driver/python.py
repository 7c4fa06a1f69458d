# The interpreter of a Python context. It listens on a unix socket for lines of
# JSON, and runs one piece of code after the other in one namespace:
#
#   in   {"op": "run", "id": ID, "code": TEXT}
#        {"op": "interrupt", "id": ID}
#   out  {"event": "hello", "version": TEXT}
#        {"event": "result", "id": ID, "final": BOOL, "data": {TYPE: TEXT}}
#        {"event": "error", "id": ID, "name": TEXT, "message": TEXT, "traceback": [TEXT]}
#        {"event": "done", "id": ID}
#
# Standard output and error are the code's own. When a run is over, the mark
# "\0tongs:ID\0" is written to both, so that whoever reads them knows that all is
# there. The newest connection is the one that counts.
import ast
import asyncio
import base64
import inspect
import json
import linecache
import os
import queue
import signal
import socket
import sys
import threading
import traceback
import types

MAX_DATA = 16 << 20  # bytes of one representation


class Server:
    def __init__(self, path):
        self.lock = threading.Lock()
        self.conn = None
        self.jobs = queue.Queue(64)
        # A thread of its own sends, so that an interrupt cuts no line in two.
        self.out = queue.Queue(256)
        self.current = None
        self.running = False  # in the code of the run: an interrupt is for it
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        # Kept apart, so that the marks come whatever the code does to 1 and 2.
        self.outputs = [os.dup(1), os.dup(2)]

    def accept(self):
        while True:
            conn, _ = self.listener.accept()
            with self.lock:
                old, self.conn = self.conn, conn
            if old is not None:
                try:
                    old.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.send({"event": "hello", "version": sys.version.split()[0]})
            threading.Thread(target=self.read, args=(conn,), daemon=True).start()

    def read(self, conn):
        try:
            with conn.makefile("rb") as lines:
                for line in lines:
                    m = json.loads(line)
                    if m["op"] == "run":
                        self.jobs.put(m)
                    elif m["op"] == "interrupt" and self.running and self.current == m["id"]:
                        # Also for the commands that the code waits for.
                        os.killpg(0, signal.SIGINT)
        except (OSError, ValueError, KeyError):
            pass
        with self.lock:
            if self.conn is conn:
                self.conn = None
        conn.close()

    def send(self, message):
        self.out.put(json.dumps(message).encode() + b"\n")

    def flush(self):
        sent = threading.Event()
        self.out.put(sent)
        sent.wait(5)

    def write(self):
        while True:
            data = self.out.get()
            if isinstance(data, threading.Event):
                data.set()
                continue
            with self.lock:
                conn = self.conn
            if conn is not None:
                try:
                    conn.sendall(data)
                except OSError:
                    pass

    def mark(self, run):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        for fd in self.outputs:
            data = b"\0tongs:" + run.encode() + b"\0"
            while data:
                try:
                    data = data[os.write(fd, data):]
                except BlockingIOError:
                    threading.Event().wait(0.01)
                except OSError:
                    break


def clip(text):
    return text if len(text) <= MAX_DATA else text[:MAX_DATA] + "…"


METHODS = (
    ("_repr_html_", "text/html"), ("_repr_markdown_", "text/markdown"), ("_repr_svg_", "image/svg+xml"), ("_repr_latex_", "text/latex"),
    ("_repr_javascript_", "application/javascript"), ("_repr_png_", "image/png"), ("_repr_jpeg_", "image/jpeg"), ("_repr_json_", "application/json"),
)


def describe(value):
    data = {"text/plain": clip(repr(value))}
    for method, kind in METHODS:
        f = None if inspect.isclass(value) else getattr(value, method, None)
        if not callable(f):
            continue
        try:
            shown = f()
        except Exception:
            continue  # there are other ways to show it
        if isinstance(shown, tuple) and shown:
            shown = shown[0]  # data and metadata
        if isinstance(shown, (bytes, bytearray)):
            shown = base64.b64encode(shown).decode()
        elif kind == "application/json" and shown is not None:
            shown = as_json(shown)
        if isinstance(shown, str) and len(shown) <= MAX_DATA:
            data[kind] = shown
    if "application/json" not in data and isinstance(value, (dict, list, tuple, str, int, float, bool)):
        text = as_json(value)
        if text is not None and len(text) <= MAX_DATA:
            data["application/json"] = text
    return data


def as_json(value):
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


class Interpreter:
    def __init__(self, server):
        self.server = server
        self.main = types.ModuleType("__main__")
        self.names = self.main.__dict__
        self.names["display"] = self.display
        sys.modules["__main__"] = self.main
        self.count = 0
        self.run_id = ""
        self.loop = None
        self.pid = os.getpid()

    def display(self, *values):
        for value in values:
            self.server.send({"event": "result", "id": self.run_id, "final": False, "data": describe(value)})

    def run(self, job):
        self.run_id = job["id"]
        self.count += 1
        failed = None
        self.server.current = job["id"]
        try:
            self.server.running = True
            value = self.execute(job.get("code", ""))
            if value is not None:
                self.names["_"] = value
                self.server.send({"event": "result", "id": self.run_id, "final": True, "data": describe(value)})
            self.figures()
            self.server.running = False
        except BaseException as e:
            self.server.running = False
            failed = e
        if os.getpid() != self.pid:
            os._exit(0)  # a fork that came back from the code: it isn't the interpreter
        if isinstance(failed, SystemExit):
            if failed.code is not None and not isinstance(failed.code, int):
                print(failed.code, file=sys.stderr)
            self.server.mark(self.run_id)
            self.server.flush()
            os._exit(failed.code if isinstance(failed.code, int) else int(failed.code is not None))
        if failed is not None:
            self.server.send({
                "event": "error", "id": self.run_id, "name": type(failed).__name__, "message": clip(message(failed)), "traceback": trace(failed),
            })
        self.server.mark(self.run_id)
        self.server.send({"event": "done", "id": self.run_id})

    def execute(self, code):
        name = "<cell %d>" % self.count
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        tree = ast.parse(code, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        if tree.body:
            self.evaluate(compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if last is not None:
            return self.evaluate(compile(last, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        return None

    def evaluate(self, compiled):
        if not compiled.co_flags & inspect.CO_COROUTINE:
            return eval(compiled, self.names)
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(eval(compiled, self.names))
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            try:
                self.loop.run_until_complete(task)
            except BaseException:
                pass
            raise

    def figures(self):
        """What matplotlib has drawn and nobody has closed."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        import io
        for number in pyplot.get_fignums():
            figure, out = pyplot.figure(number), io.BytesIO()
            figure.savefig(out, format="png", bbox_inches="tight")
            pyplot.close(figure)
            png = base64.b64encode(out.getvalue()).decode()
            if len(png) <= MAX_DATA:
                self.server.send({"event": "result", "id": self.run_id, "final": False, "data": {"text/plain": repr(figure), "image/png": png}})


def message(e):
    try:
        return str(e)
    except Exception:
        return ""


def trace(e):
    """The traceback without the frames of this file."""
    try:
        tb = e.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
            tb = tb.tb_next
        e = e.with_traceback(tb)
        return [clip(line) for line in traceback.format_exception(type(e), e, tb)][-200:]
    except Exception:
        return [type(e).__name__]


def main():
    path, ready = sys.argv[1:3]
    server = Server(path)

    def interrupted(number, frame):
        if server.running:
            raise KeyboardInterrupt
    signal.signal(signal.SIGINT, interrupted)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    sys.argv = [""]
    sys.path[0] = ""
    import warnings
    warnings.filterwarnings("ignore", message=".*non-interactive.*")
    interpreter = Interpreter(server)
    threading.Thread(target=server.accept, daemon=True).start()
    threading.Thread(target=server.write, daemon=True).start()
    server.mark(ready)
    while True:
        interpreter.run(server.jobs.get())


main()
