// In the audio thread: hands on what the microphone gives, 2048 samples at a time.

class RecorderNode extends AudioWorkletProcessor {
  held = new Float32Array(2048);
  count = 0;

  process([[channel]]) {
    if (!channel) return true;
    this.held.set(channel, this.count);
    this.count += channel.length;
    if (this.count + channel.length > this.held.length) {
      this.port.postMessage(this.held.slice(0, this.count));
      this.count = 0;
    }
    return true;
  }
}

registerProcessor("recorder", RecorderNode);
