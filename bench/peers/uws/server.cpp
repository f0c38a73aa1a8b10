// A dispatch gateway's inner loop on uWebSockets: a text frame that names a driver is that driver's turn to be told.
// Whoever is named gets a push of 300 bytes. Single thread, epoll, no TLS, no compression. See ../README.md.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unordered_map>

#include "App.h"

namespace {

constexpr std::string_view kPrefix = "/ws/driver/";

struct Driver {
    std::string name;
};

using Socket = uWS::WebSocket<false, true, Driver>;

// Looked up by a name that lies in the receive buffer: no copy for a lookup.
struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return std::hash<std::string_view>{}(name); }
};

using Drivers = std::unordered_map<std::string, Socket *, NameHash, std::equal_to<>>;

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s PUSH_BYTES\n", argv[0]);
        return 2;
    }
    const std::string push(static_cast<size_t>(std::atoi(argv[1])), 'x');
    Drivers drivers;

    auto behavior = uWS::App::WebSocketBehavior<Driver>{};
    behavior.compression = uWS::DISABLED;
    behavior.maxPayloadLength = 16 * 1024;
    behavior.idleTimeout = 600;
    behavior.sendPingsAutomatically = false;
    behavior.upgrade = [](auto *res, auto *req, auto *context) {
        std::string_view url = req->getUrl();
        url.remove_prefix(std::min(url.size(), kPrefix.size()));
        res->template upgrade<Driver>({std::string(url)}, req->getHeader("sec-websocket-key"),
                                      req->getHeader("sec-websocket-protocol"),
                                      req->getHeader("sec-websocket-extensions"), context);
    };
    behavior.open = [&drivers](Socket *socket) { drivers[socket->getUserData()->name] = socket; };
    behavior.message = [&](Socket *, std::string_view name, uWS::OpCode) {
        auto found = drivers.find(name);
        if (found != drivers.end()) {
            found->second->send(push, uWS::OpCode::TEXT);
        }
    };
    behavior.close = [&drivers](Socket *socket, int, std::string_view) {
        auto found = drivers.find(socket->getUserData()->name);
        if (found != drivers.end() && found->second == socket) {
            drivers.erase(found);
        }
    };

    uWS::App()
        .ws<Driver>("/ws/driver/:id", std::move(behavior))
        .listen("127.0.0.1", 0, [](us_listen_socket_t *listener) {
            if (listener == nullptr) {
                std::fprintf(stderr, "cannot listen\n");
                std::exit(1);
            }
            int port = us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener));
            std::printf("127.0.0.1:%d\n", port);
            std::fflush(stdout);
        })
        .run();
}
