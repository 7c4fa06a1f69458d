// Package modelproxy is the way to the language models. It takes the requests
// that OpenCode's SDKs send to http://127.0.0.1:4100/<provider>/<rest>, removes
// every credential they carry, adds the real key, and passes the answer back as
// it comes. OpenCode itself never holds a key.
package modelproxy
