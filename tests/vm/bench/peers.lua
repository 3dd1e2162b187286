-- The programs of this folder for Lua 5.4 and LuaJIT. Prints the CPU seconds of one.
local which = arg[1]
local bit = rawget(_G, 'bit')

local function fib(n)
    if n < 2 then return n end
    return fib(n - 1) + fib(n - 2)
end

local function sieve(n)
    local composite, count = {}, 0
    for i = 0, n - 1 do composite[i] = 0 end
    local start = os.clock()
    for i = 2, n - 1 do
        if composite[i] == 0 then
            count = count + 1
            for j = i * i, n - 1, i do composite[j] = 1 end
        end
    end
    return count, os.clock() - start
end

-- Operators that LuaJIT cannot parse, and calls that Lua 5.4 does not have.
local crc_source = bit and [[
    local band, bxor, shr = bit.band, bit.bxor, bit.rshift
    return function(data, t)
        local c = 0xffffffff
        for i = 1, #data do c = bxor(shr(c, 8), t[band(bxor(c, data[i]), 255)]) end
        return bit.tohex(bit.bnot(c))
    end, function(c)
        return band(c, 1) == 1 and bxor(shr(c, 1), 0xedb88320) or shr(c, 1)
    end]] or [[
    return function(data, t)
        local c = 0xffffffff
        for i = 1, #data do c = (c >> 8) ~ t[(c ~ data[i]) & 255] end
        return string.format('%x', c ~ 0xffffffff)
    end, function(c)
        return c & 1 == 1 and (c >> 1) ~ 0xedb88320 or c >> 1
    end]]

local function crc(n)
    local run, step = (loadstring or load)(crc_source)()
    local data, t = {}, {}
    for i = 1, n do data[i] = 0 end
    for i = 0, 255 do
        local c = i
        for _ = 1, 8 do c = step(c) end
        t[i] = c
    end
    local start = os.clock()
    local sum = run(data, t)
    return sum, os.clock() - start
end

local start, result, seconds = os.clock()
if which == 'fib' then
    result = fib(32)
elseif which == 'sieve' then
    result, seconds = sieve(5000000)
else
    result, seconds = crc(16 * 1024 * 1024)
end
io.stderr:write(which, ' ', tostring(result), '\n')
print(seconds or os.clock() - start)
