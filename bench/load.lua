-- wrk's script: the bodies of a folder one after the other; the result as a line of JSON.
-- Environment: BODIES (paths, one per line), CONTENT_TYPE.
local bodies, next_body = {}, 0

function init(_)
  for path in os.getenv("BODIES"):gmatch("[^\n]+") do
    local file = assert(io.open(path, "rb"))
    bodies[#bodies + 1] = wrk.format("POST", nil, {["Content-Type"] = os.getenv("CONTENT_TYPE")}, file:read("*a"))
    file:close()
  end
end

function request()
  next_body = next_body % #bodies + 1
  return bodies[next_body]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
