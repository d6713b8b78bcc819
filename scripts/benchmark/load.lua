-- Sends the requests that workload.lua describes, by wrk, and checks each answer.
dofile("workload.lua")

good, bad, first_bad = 0, 0, ""
local number, log, threads = 0, nil, {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  math.randomseed(workload.seed)
  if workload.log then
    log = io.open(workload.log, "a")
  end
end

function request()
  number = number + 1
  local entry = workload.entries[math.random(#workload.entries)]
  local values = { ["@ID"] = entry[1], ["@TICKET"] = entry[2], ["@NUMBER"] = tostring(number) }
  local path, body = workload.path:gsub("@%u+", values), workload.body:gsub("@%u+", values)
  return wrk.format(workload.method, path, workload.headers, body)
end

local function is_right(status, body)
  if status ~= 200 or body:find('"errors"', 1, true) then
    return false
  end
  for _, text in ipairs(workload.expected) do
    if not body:find(text, 1, true) then
      return false
    end
  end
  return true
end

function response(status, _, body)
  if is_right(status, body) then
    good = good + 1
    if log then
      log:write(body, "\n")
    end
  else
    bad = bad + 1
    if bad == 1 then
      first_bad = status .. " " .. body:sub(1, 300):gsub("[^%w %p]", " "):gsub('["\\]', "'")
    end
  end
end

function done(summary, latency)
  local answered, wrong, example = 0, 0, ""
  for _, thread in ipairs(threads) do
    answered, wrong = answered + thread:get("good"), wrong + thread:get("bad")
    example = thread:get("first_bad")
  end
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write
  print(string.format(
    '{"good": %d, "bad": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "first_bad": "%s"}',
    answered, wrong + lost, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, example))
end
