// A dispatch gateway's inner loop on lesismal/nbio: whoever a text frame names gets a push of 300 bytes. See ../../README.md.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

const prefix = "/ws/driver/"

func main() {
	bytes, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	runtime.GOMAXPROCS(1)
	logging.SetLevel(logging.LevelNone)
	push := []byte(strings.Repeat("x", bytes))
	var mutex sync.RWMutex
	drivers := map[string]*websocket.Conn{}

	// Frames are handled where they are read: no hop to another goroutine.
	upgrader := websocket.NewUpgrader()
	upgrader.BlockingModAsyncWrite = false
	upgrader.KeepaliveTime = 0
	upgrader.Subprotocols = []string{"dispatch.v1"}
	upgrader.OnMessage(func(_ *websocket.Conn, kind websocket.MessageType, name []byte) {
		if kind != websocket.TextMessage {
			return
		}
		mutex.RLock()
		other := drivers[string(name)]
		mutex.RUnlock()
		if other != nil {
			_ = other.WriteMessage(websocket.TextMessage, push)
		}
	})
	upgrader.OnClose(func(conn *websocket.Conn, _ error) {
		name, _ := conn.Session().(string)
		mutex.Lock()
		defer mutex.Unlock()
		if drivers[name] == conn {
			delete(drivers, name)
		}
	})
	mux := &http.ServeMux{}
	mux.HandleFunc(prefix, func(writer http.ResponseWriter, request *http.Request) {
		conn, err := upgrader.Upgrade(writer, request, nil)
		if err != nil {
			return
		}
		name := strings.Clone(request.URL.Path[len(prefix):])
		conn.SetSession(name)
		mutex.Lock()
		drivers[name] = conn
		mutex.Unlock()
	})

	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp4",
		Addrs:                   []string{"127.0.0.1:0"},
		Handler:                 mux,
		NPoller:                 1,
		MaxLoad:                 1 << 20,
		ReadBufferSize:          4096,
		ReleaseWebsocketPayload: true,
		IOMod:                   nbhttp.IOModNonBlocking,
		ServerExecutor:          func(task func()) { task() },
		Listen: func(network, address string) (net.Listener, error) {
			// Go's default probes every connection each 15 s; none of the other servers does.
			quiet := net.ListenConfig{KeepAlive: -1}
			listener, err := quiet.Listen(context.Background(), network, address)
			if err == nil {
				fmt.Println(listener.Addr())
			}
			return listener, err
		},
	})
	if err := engine.Start(); err != nil {
		panic(err)
	}
	select {}
}
