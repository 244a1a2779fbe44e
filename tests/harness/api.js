// A client of Postern's API: plain fetch, no retries, redirects shown and not followed.

export class Api {
  constructor(url, key) {
    this.url = url;
    this.key = key;
  }

  as(key) {
    return new Api(this.url, key);
  }

  /** One request; `{status, headers, body}`, the body parsed when it is JSON. */
  async call(method, path, body, headers = {}) {
    const answer = await fetch(new URL(path, this.url), {
      method,
      redirect: 'manual',
      headers: {
        ...(this.key ? { authorization: `Bearer ${this.key}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    const type = answer.headers.get('content-type') ?? '';
    return { status: answer.status, headers: answer.headers, body: /json/.test(type) ? JSON.parse(text) : text };
  }

  get(path) {
    return this.call('GET', path);
  }

  post(path, body) {
    return this.call('POST', path, body);
  }

  /** One request that must answer `status`; its body. */
  async must(status, method, path, body) {
    const answer = await this.call(method, path, body);
    if (answer.status !== status) {
      throw new Error(`${method} ${path} answered ${answer.status}, not ${status}: ${JSON.stringify(answer.body).slice(0, 800)}`);
    }
    return answer.body;
  }

  async items(path) {
    return (await this.must(200, 'GET', path)).items;
  }
}
