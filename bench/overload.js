// k6's script: one image, posted at a fixed rate whatever comes back (an open loop), and a probe beside it.
// Environment: URL, LIVEZ, BODY (a path), RATE, SECONDS, AFTER_RATE, AFTER_SECONDS, DEADLINE_MS.
import http from 'k6/http';

const body = open(__ENV.BODY, 'b');
const headers = { 'Content-Type': 'image/png', 'X-Request-Timeout-Ms': __ENV.DEADLINE_MS };
const seconds = Number(__ENV.SECONDS);

function arriving(rate, start, length, exec) {
  return {
    executor: 'constant-arrival-rate', exec, rate, timeUnit: '1s', duration: `${length}s`, startTime: `${start}s`,
    preAllocatedVUs: Math.min(400, Math.max(10, Math.ceil(rate))), maxVUs: 1000,
  };
}

export const options = {
  scenarios: {
    overload: arriving(Number(__ENV.RATE), 0, seconds, 'post'),
    after: arriving(Number(__ENV.AFTER_RATE), seconds, Number(__ENV.AFTER_SECONDS), 'post'),
    probe: arriving(10, 0, seconds, 'probe'),
  },
  discardResponseBodies: true,
  systemTags: ['status', 'scenario'],
  noConnectionReuse: false,
};

export function post() { http.post(__ENV.URL, body, { headers, timeout: '10s' }); }
export function probe() { http.get(__ENV.LIVEZ, { timeout: '10s' }); }
