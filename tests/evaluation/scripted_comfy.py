"""A server with ComfyUI's routes that draws in no time: coloured discs that only the graph decides.

python scripted_comfy.py PORT SECONDS LOG    SECONDS per image; every prompt that it was given is a line in LOG
"""

import hashlib
import io
import json
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = [(214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 221, 51)]


def picture(graph: dict) -> bytes:
    text = json.dumps(graph, sort_keys=True)
    number = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    image = Image.new("RGB", (128, 128), (120, 190, 90))
    pen = ImageDraw.Draw(image)
    for i in range(1 + number % 3):
        x, y, size = 10 + 40 * i, 10 + (number >> 8 * i) % 60, 26 + (number >> 4 * i) % 9
        pen.ellipse([x, y, x + size, y + size], COLOURS[(number >> 3 * i) % 4])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class Comfy(ThreadingHTTPServer):
    def __init__(self, port: int, seconds: float, log: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.seconds, self.log, self.history, self.waiting = seconds, log, {}, {}

    def run(self, number: str, graph: dict) -> None:
        time.sleep(self.seconds)
        told = [["execution_start", {"timestamp": 0}], ["execution_success", {"timestamp": 40}]]
        self.history[number] = {
            "prompt": [0, number, graph],
            "outputs": {"9": {"images": [{"filename": f"{number}.png", "subfolder": "", "type": "output"}]}},
            "status": {"completed": True, "messages": told},
        }
        self.waiting.pop(number)


class Handler(BaseHTTPRequestHandler):
    server: Comfy

    def log_message(self, *_args) -> None:
        pass

    def reply(self, body: bytes | dict, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path != "/prompt":
            return self.reply({})
        with self.server.log.open("a") as file:
            file.write(json.dumps({"busy": len(self.server.waiting)}) + "\n")
        if "Broken" in json.dumps(asked["prompt"]):
            return self.reply({"error": {"message": "no such node"}}, 400)
        number = uuid.uuid4().hex
        self.server.waiting[number] = asked["prompt"]
        threading.Thread(target=self.server.run, args=(number, asked["prompt"]), daemon=True).start()
        self.reply({"prompt_id": number})

    def do_GET(self) -> None:
        path = urllib.parse.urlparse(self.path)
        last = path.path.rsplit("/", 1)[-1]
        if path.path.startswith("/history/"):
            return self.reply({last: self.server.history[last]} if last in self.server.history else {})
        if last == "view":
            name = urllib.parse.parse_qs(path.query)["filename"][0]
            return self.reply(picture(self.server.history[name.removesuffix(".png")]["prompt"][2]))
        if last == "queue":
            return self.reply({"queue_running": [[0, number] for number in self.server.waiting], "queue_pending": []})
        self.reply({"system": {"pytorch_version": "0", "comfyui_version": "scripted"}, "devices": [{"name": "none"}]})


if __name__ == "__main__":
    Comfy(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])).serve_forever()
