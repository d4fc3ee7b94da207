// Package audit reads a namespace as it lies in Redis and says where records and indexes
// disagree. It is a second opinion: it follows the description of the layout in redisstore's
// keys.go, and shares no code with the store, so that an error in that is not repeated here.
package audit
