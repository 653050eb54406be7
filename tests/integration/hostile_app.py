"""An application that says all that it was sent, in its errors and in its headers."""


async def app(scope, receive, send):
    sent = [scope["path"], scope["query_string"].decode("latin-1"), str(scope["client"])]
    sent += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in scope["headers"]]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            sent.append(repr(message))
        sent.append(message["reason"])
    elif scope["path"].startswith("/header"):
        headers = [(b"x-path", scope["path"].encode("utf-8", "surrogateescape"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    else:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                sent.append("left")
                break
            more = message["more_body"]
            sent.append(message["body"].decode("latin-1"))
    raise RuntimeError("\n".join(sent))
