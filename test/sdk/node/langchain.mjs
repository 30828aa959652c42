// npm @langchain/openai.
import { HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages';
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { city, instructions, pictureURL, weather } from './things.mjs';

const tools = [{ type: 'function', function: weather }];
const settings = (p, more) => ({
  model: p.model,
  apiKey: p.key,
  maxRetries: p.retries,
  timeout: p.timeoutMS,
  configuration: { baseURL: p.baseURL, defaultHeaders: p.header, fetch: p.fetch },
  ...more,
});
const chat = (p, more) => new ChatOpenAI(settings(p, more));
const responses = (p) => chat(p, { useResponsesApi: true });
const user = (p) => [new SystemMessage(instructions), new HumanMessage(p.prompt)];

// A message without the ids of runs, which are made up.
function noted(message) {
  const { content, tool_calls, tool_call_chunks, usage_metadata, response_metadata, additional_kwargs, id } = message;
  return { content, tool_calls, tool_call_chunks, usage_metadata, response_metadata, additional_kwargs, id: id?.replace(/^run-.*/, 'run') };
}

const whole = async (asked, saw) => (saw.data = noted(await asked));

async function events(asked, saw, more = () => true) {
  saw.chunks = [];
  let together;
  for await (const chunk of await asked) {
    saw.chunks.push(noted(chunk));
    together = together ? together.concat(chunk) : chunk;
    if (!more()) break;
  }
  saw.data = noted(together);
}

function abort(p, model, saw) {
  const controller = new AbortController();
  return events(model.stream(user(p), { signal: controller.signal }), saw, () => {
    if (saw.chunks.length < p.take) return true;
    p.leave();
    controller.abort();
    return false;
  });
}

export const calls = {
  chat: (p, saw) => whole(chat(p).invoke(user(p)), saw),
  chatWithoutMessages: (p, saw) => whole(chat(p).invoke([]), saw),
  response: (p, saw) => whole(responses(p).invoke(user(p)), saw),
  stream: (p, saw) => events(chat(p, { streamUsage: false }).stream(user(p)), saw),
  streamWithUsage: (p, saw) => events(chat(p).stream(user(p)), saw),
  streamedTools: (p, saw) => events(chat(p).bindTools(tools).stream(user(p)), saw),
  streamedResponse: (p, saw) => events(responses(p).stream(user(p)), saw),
  abort: (p, saw) => abort(p, chat(p), saw),
  abortResponse: (p, saw) => abort(p, responses(p), saw),

  image(p, saw) {
    const content = [{ type: 'text', text: p.prompt }, { type: 'image_url', image_url: { url: pictureURL } }];
    return whole(chat(p).invoke([new HumanMessage({ content })]), saw);
  },

  async completion(p, saw) {
    const { generations, llmOutput } = await new OpenAI(settings(p)).generate([p.prompt]);
    saw.data = { generations, llmOutput };
  },

  async structured(p, saw) {
    saw.parsed = await chat(p).withStructuredOutput(city, { name: 'city', method: 'jsonSchema' }).invoke(user(p));
  },

  async tools(p, saw) {
    const model = chat(p).bindTools(tools);
    const messages = user(p);
    const asked = await model.invoke(messages);
    saw.chunks = [noted(asked)];
    messages.push(asked, new ToolMessage({ tool_call_id: asked.tool_calls[0].id, content: '21 degrees' }));
    await whole(model.invoke(messages), saw);
  },

  async embeddings(p, saw) {
    saw.data = { embeddings: await new OpenAIEmbeddings(settings(p)).embedDocuments([p.prompt, 'two']), model: p.model };
  },
};

export function described(error) {
  const { name, status, code, type, param, message, lc_error_code } = error;
  return { class: error.constructor.name, name, status, code, type, param, message, lc_error_code };
}
