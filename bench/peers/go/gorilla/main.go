// A dispatch gateway's inner loop on gorilla/websocket: whoever a text frame names gets a push of 300 bytes. See ../../README.md.
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

	"github.com/gorilla/websocket"
)

const prefix = "/ws/driver/"

// driver is one connection; gorilla allows one writer at a time.
type driver struct {
	mutex sync.Mutex
	conn  *websocket.Conn
}

func (d *driver) push(message *websocket.PreparedMessage) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	// An error ends the connection, which its reader hears of.
	_ = d.conn.WritePreparedMessage(message)
}

// registry finds drivers by name.
type registry struct {
	mutex   sync.RWMutex
	drivers map[string]*driver
}

func (r *registry) find(name []byte) *driver {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	return r.drivers[string(name)]
}

func (r *registry) add(name string, d *driver) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.drivers[name] = d
}

func (r *registry) remove(name string, d *driver) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.drivers[name] == d {
		delete(r.drivers, name)
	}
}

// serve reads until the connection ends.
func serve(drivers *registry, name string, conn *websocket.Conn, message *websocket.PreparedMessage) {
	d := &driver{conn: conn}
	drivers.add(name, d)
	defer drivers.remove(name, d)
	defer conn.Close()
	conn.SetReadLimit(16 << 10)
	named := make([]byte, 128)
	for {
		kind, reader, err := conn.NextReader()
		if err != nil {
			return
		}
		length := 0
		for length < len(named) {
			n, err := reader.Read(named[length:])
			length += n
			if err != nil {
				break
			}
		}
		if kind == websocket.TextMessage {
			if other := drivers.find(named[:length]); other != nil {
				other.push(message)
			}
		}
	}
}

func main() {
	bytes, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	runtime.GOMAXPROCS(1)
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(strings.Repeat("x", bytes)))
	if err != nil {
		panic(err)
	}
	drivers := &registry{drivers: map[string]*driver{}}
	// Small buffers, and write buffers that only a write holds: the leanest that the library offers.
	upgrader := websocket.Upgrader{
		ReadBufferSize:  512,
		WriteBufferSize: 512,
		WriteBufferPool: &sync.Pool{},
		Subprotocols:    []string{"dispatch.v1"},
	}
	http.HandleFunc(prefix, func(writer http.ResponseWriter, request *http.Request) {
		conn, err := upgrader.Upgrade(writer, request, nil)
		if err != nil {
			return
		}
		// The handler's goroutine keeps the request and its buffers alive; the reader shall not.
		go serve(drivers, strings.Clone(request.URL.Path[len(prefix):]), conn, message)
	})
	// Go's default probes every connection each 15 s; none of the other servers does.
	quiet := net.ListenConfig{KeepAlive: -1}
	listener, err := quiet.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(http.Serve(listener, nil))
}
