// Search runs in a web worker, which browsers refuse to start from a file:// page. There, a hidden frame takes its
// place: it loads the worker's script, and messages go back and forth between the page and the frame.
"use strict";

class IframeWorker extends EventTarget {
  constructor(url) {
    super();
    this.onmessage = null;
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.appendChild(this.frame);
    const inside = this.frame.contentWindow;
    addEventListener("message", (event) => {
      if (event.source !== inside) return;
      const copy = new MessageEvent("message", { data: event.data });
      this.dispatchEvent(copy);
      if (this.onmessage) this.onmessage(copy);
    });
    inside.document.open();
    inside.document.write(
      `<script>
        window.postMessage = (data) => parent.postMessage(data, "*");
        window.importScripts = (...urls) =>
          urls.reduce((before, url) => before.then(() => new Promise((done) => {
            const script = document.createElement("script");
            script.src = url;
            script.onload = done;
            document.body.appendChild(script);
          })), Promise.resolve());
      </scr` + `ipt><script src="${url}"></scr` + `ipt>`
    );
    inside.document.close();
    this.loaded = new Promise((done) => inside.addEventListener("load", done));
  }

  postMessage(data) {
    this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = IframeWorker;
