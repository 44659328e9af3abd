-- The request that wrk repeats, and its results as one line of JSON.
-- Usage: wrk ... --script wrk.lua URL -- [BYTES]    BYTES: POST a body of that size; without it: GET.

function init(args)
    local size = tonumber(args[1])
    if size then
        wrk.method = "POST"
        wrk.headers["Content-Type"] = "application/octet-stream"
        wrk.body = string.rep("x", size)
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"bytes":%d,"microseconds":%d,"p50":%d,"p99":%d,'
            .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
        summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.timeout, errors.status
    ))
end
