// Runs the calls of a plan with an SDK and prints, one line of JSON for each, what the SDK saw and what came over the wire.
// Usage: node run.mjs SDK, where SDK.mjs exports calls and described. The plan comes on stdin:
// {proxy, calls: [{name, call, model, prompt, baseURL, key, header, retries, timeoutMS, take, leaves}]}.
// With a proxy, requests go to it as to any HTTP proxy; without, to where the base URL says.
import { json } from 'node:stream/consumers';
import { ProxyAgent, setGlobalDispatcher } from 'undici';
import { recording } from './recording.mjs';

const { calls, described } = await import(`./${process.argv[2]}.mjs`);
const plan = await json(process.stdin);
if (plan.proxy) {
  // Node's own fetch knows no proxy. undici's asks for a tunnel (CONNECT) even to where a URL is plain http, as
  // its support in later versions does; the sidecar lets it end there.
  setGlobalDispatcher(new ProxyAgent({ uri: plan.proxy }));
}

for (const p of plan.calls) {
  const line = { name: p.name, saw: {}, wire: [] };
  const { fetch, settled } = recording(line.wire, p.leaves);
  const leave = () => (line.endedAt = Date.now());
  try {
    if (!calls[p.call]) throw new Error(`there is no call ${p.call}`);
    await calls[p.call]({ ...p, fetch, leave }, line.saw);
  } catch (error) {
    line.saw.error = described(error);
  }
  line.endedAt ??= Date.now();
  await settled();
  console.log(JSON.stringify(line));
}
process.exit(0); // without waiting for kept connections
