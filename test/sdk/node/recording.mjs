// A fetch that notes what comes over the wire before an SDK reads anything into it.

// recording gives a fetch that appends to wire, for each answer, {status, header, body (base64), broken}.
// leaves says that the SDK will go before the end of the answer. Otherwise an answer is read to its end even where the
// SDK is content with less.
export function recording(wire, leaves) {
  return async (input, init) => {
    const response = await fetch(input, init);
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
    const next = async () => {
      try {
        const { done, value } = await reader.read();
        if (value) chunks.push(value);
        return { done, value };
      } catch (error) {
        note.broken = error.cause?.code ?? error.name;
        throw error;
      }
    };
    const body = new ReadableStream(
      {
        async pull(controller) {
          const { done, value } = await next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        async cancel(reason) {
          if (leaves) return reader.cancel(reason);
          while (!(await next()).done);
        },
      },
      { highWaterMark: 0 },
    );
    const { status, statusText, headers } = response;
    return new Response(body, { status, statusText, headers });
  };
}
