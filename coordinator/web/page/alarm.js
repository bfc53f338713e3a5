// A thing to do soon, however often it is asked for: many wishes are one, and none puts it off. (A timer that each event
// winds up again would never ring on a busy cluster.)

export class Alarm {
  // `gap_ms`: at least so long from one ring to the next.
  constructor(ring, gap_ms = 0) {
    this.ring = ring;
    this.gap = gap_ms;
    this.handle = null;
    this.due = 0;
    this.rang = 0;
    this.isStopped = false;
  }

  // Rings in `delay_ms`, or earlier if that was asked for before.
  within(delay_ms) {
    if (this.isStopped) return;
    const now = Date.now();
    const due = Math.max(now + delay_ms, this.rang + this.gap);
    if (this.handle !== null && this.due <= due) return;
    clearTimeout(this.handle);
    this.due = due;
    this.handle = setTimeout(() => {
      this.handle = null;
      this.rang = Date.now();
      this.ring();
    }, due - now);
  }

  // For good: who was waiting for an answer as it was stopped shall not wind it up again.
  stop() {
    this.isStopped = true;
    clearTimeout(this.handle);
  }
}
