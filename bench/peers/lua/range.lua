-- wrk script: random 64 KiB ranges of one file of $BENCH_SIZE bytes. wrk.format takes the given headers instead of those
-- of the command line (-H), so these are copied.
local threads = {}
function setup(thread) thread:set("tno", #threads); threads[#threads + 1] = thread end
function init(args)
  local size, blk = tonumber(os.getenv("BENCH_SIZE")), 65536
  local path
  for l in io.lines(os.getenv("BENCH_PATHS")) do path = l; break end
  math.randomseed(1000 + tno)
  reqs = {}
  for k = 1, 4096 do
    local off = math.floor(math.random() * (size - blk))
    local headers = { ["Range"] = string.format("bytes=%d-%d", off, off + blk - 1), ["Host"] = wrk.host }
    for name, value in pairs(wrk.headers) do headers[name] = value end
    reqs[k] = wrk.format("GET", path, headers)
  end
  i = 0
end
function request() i = i + 1; return reqs[i % 4096 + 1] end
function done(s, lat, r)
  local e = s.errors
  io.write(string.format('JSON {"requests":%d,"bytes":%d,"wall_s":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"errors":%d}\n',
    s.requests, s.bytes, s.duration / 1e6, lat:percentile(50) / 1e3, lat:percentile(99) / 1e3, lat.max / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
