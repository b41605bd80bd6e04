// The search runs in a worker, which browsers refuse to pages that are opened as files: there a hidden frame runs it.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.worker = this;
      frame.srcdoc = `
        <script>postMessage = (data) => frameElement.worker.dispatchEvent(new MessageEvent("message", { data }))</script>
        <script src="${url}"></script>`;
      this.loaded = new Promise((resolve) => (frame.onload = () => resolve(frame.contentWindow)));
      document.body.append(frame);
    }

    postMessage(data) {
      this.loaded.then((window) => window.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
