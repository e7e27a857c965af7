// The search is a worker, which browsers do not start for pages opened from the disk: run its script in a hidden frame.
// Zensical recognises a file of this name and then loads no such script from another host.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.waiting = [];
      this.inside.document.open();
      this.inside.document.write("<body></body>");
      this.inside.document.close();
      this.inside.postMessage = data => setTimeout(() => this.onmessage?.({ data }));
      const script = this.inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        const first = this.waiting;
        this.waiting = null;
        first.forEach(data => this.postMessage(data));
      };
      this.inside.document.body.append(script);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inside.onmessage({ data });
    }
    terminate() {
      this.frame.remove();
    }
  };
}
