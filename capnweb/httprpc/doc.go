// Package httprpc carries Cap'n Web sessions over HTTP: over a WebSocket, for
// sessions that stay, and as HTTP batches, one POST for a few calls.
//
// [Dial] connects to a WebSocket endpoint; [Handler] is one. Both speak to the
// JavaScript library as they do to each other.
package httprpc
