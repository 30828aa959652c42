// A fetch that notes what comes over the wire before an SDK reads anything into it.

// recording gives a fetch that appends to wire, for each answer, {status, header, body (base64), broken}.
// leaves says that the SDK will go before the end of the answer. Otherwise an answer is read to its end even where the
// SDK is content with less; settled waits for that.
export function recording(wire, leaves) {
  const reading = [];

  async function recorded(input, init) {
    const response = await fetch(input, leaves ? init : { ...init, signal: undefined });
    const chunks = [];
    const note = {
      status: response.status,
      header: Object.fromEntries(response.headers),
      get body() {
        return Buffer.concat(chunks).toString('base64');
      },
      broken: '',
    };
    wire.push(note);
    if (!response.body) return response;
    const reader = response.body.getReader();
    let wanted = true;
    const read = async (controller) => {
      try {
        for (let next; !(next = await reader.read()).done; ) {
          chunks.push(next.value);
          if (wanted) controller.enqueue(next.value);
        }
        if (wanted) controller.close();
      } catch (error) {
        note.broken = error.cause?.code ?? error.name;
        if (wanted) controller.error(error);
      }
    };
    const body = new ReadableStream({
      start(controller) {
        reading.push(read(controller));
      },
      cancel(reason) {
        wanted = false;
        return leaves ? reader.cancel(reason) : undefined;
      },
    });
    const { status, statusText, headers } = response;
    return new Response(body, { status, statusText, headers });
  }

  return { fetch: recorded, settled: () => (leaves ? undefined : Promise.all(reading)) };
}
