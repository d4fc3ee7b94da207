package audit

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// The content of a key.
type content struct {
	sort    string
	expires bool
	text    string
	hash    map[string]string
	zset    map[string]float64
	set     map[string]bool
}

var empty = &content{}

func (a *audit) key(name string) *content {
	if c := a.space[name]; c != nil {
		return c
	}
	return empty
}

func (p *part) key(name string) *content {
	if c := p.keys[name]; c != nil {
		return c
	}
	return empty
}

// A script sees all keys at one moment.
const readAll = `
local time = redis.call('TIME')
local all = {time[1] .. string.format('%03d', math.floor(time[2] / 1000))}
for _, pattern in ipairs(ARGV) do
  for _, key in ipairs(redis.call('KEYS', pattern)) do
    local sort, has = redis.call('TYPE', key).ok, {}
    if sort == 'string' then has = {redis.call('GET', key)}
    elseif sort == 'hash' then has = redis.call('HGETALL', key)
    elseif sort == 'zset' then has = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif sort == 'set' then has = redis.call('SMEMBERS', key) end
    all[#all + 1] = {key, sort, redis.call('PTTL', key), has}
  end
end
return all`

func (a *audit) read(ctx context.Context, rdb *redis.Client) (map[string]*content, error) {
	reply, err := rdb.Eval(ctx, readAll, nil, "{"+a.namespace+"}:*", "{"+a.namespace+":*").Slice()
	if err != nil {
		return nil, err
	}
	if a.now, err = strconv.ParseInt(fmt.Sprint(reply[0]), 10, 64); err != nil {
		return nil, err
	}
	all := make(map[string]*content, len(reply)-1)
	for _, v := range reply[1:] {
		one := v.([]any)
		words := make([]string, 0, len(one[3].([]any)))
		for _, word := range one[3].([]any) {
			words = append(words, word.(string))
		}
		c := &content{sort: one[1].(string), expires: one[2].(int64) >= 0}
		switch c.sort {
		case "string":
			c.text = words[0]
		case "hash":
			c.hash = make(map[string]string, len(words)/2)
			for i := 0; i < len(words); i += 2 {
				c.hash[words[i]] = words[i+1]
			}
		case "zset":
			c.zset = make(map[string]float64, len(words)/2)
			for i := 0; i < len(words); i += 2 {
				if c.zset[words[i]], err = strconv.ParseFloat(words[i+1], 64); err != nil {
					return nil, err
				}
			}
		case "set":
			c.set = make(map[string]bool, len(words))
			for _, word := range words {
				c.set[word] = true
			}
		}
		all[one[0].(string)] = c
	}
	return all, nil
}
