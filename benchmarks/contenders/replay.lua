-- wrk -s replay.lua URL -- BODIES RECORDS: posts the first 32 lines of BODIES over and over; each holds RECORDS.
local bodies, number = {}, 0

function setup(thread)
  thread:set("id", 1)
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    if #bodies == 32 then break end
    bodies[#bodies + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, line)
  end
end

function request()
  number = number % #bodies + 1
  return bodies[number]
end

function done(summary)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
  if failed > 0 then os.exit(1) end
  local records = tonumber(os.getenv("RECORDS_A_BODY"))
  print(string.format('{"seconds": %f, "work": %d}', summary.duration / 1e6, summary.requests * records))
end
