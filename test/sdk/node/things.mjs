// What every SDK is given to do.

export const instructions = 'Answer briefly.';

export const weather = {
  name: 'get_weather',
  description: 'The weather of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};

export const city = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};

// A picture of 300 KiB, the same each time.
export const picture = Buffer.from(Array.from({ length: 300 << 10 }, (_, i) => (i * i + (i >> 7)) & 255));
export const pictureURL = `data:image/png;base64,${picture.toString('base64')}`;

export const sound = Buffer.alloc(100_000, 7);
