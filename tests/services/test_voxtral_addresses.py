"""Whoever chooses the URL, the service connects to public addresses only."""

import ipaddress
import random
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.transcription.errors import InvalidRequest
from services.voxtral.addresses import check_url, is_public, is_refusal, make_session, shown_host
from tests.services.sites import (
    INSIDE,
    INSIDE_V6,
    OUTSIDE,
    Names,
    Site,
    has_ipv6,
    is_outside,
    redirect,
    response,
    run_site,
)

IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "0.255.255.255",
    "10.0.0.0", "10.1.2.3", "10.255.255.255",
    "100.64.0.0", "100.100.100.200", "100.127.255.255",
    "127.0.0.0", "127.0.0.1", "127.8.8.8", "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255",
    "172.16.0.0", "172.17.0.1", "172.31.255.255",
    "192.0.0.0", "192.0.0.8", "192.0.0.192", "192.0.0.255",
    "192.0.2.0", "192.0.2.255", "192.88.99.1",
    "192.168.0.0", "192.168.1.1", "192.168.255.255",
    "198.18.0.0", "198.19.255.255",
    "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255",
    "224.0.0.0", "224.0.0.251", "239.255.255.255", "240.0.0.0", "255.255.255.255",
    "::", "::1", "::2", "::7f00:1", "::127.0.0.1", "::8.8.8.8",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::",
    "64:ff9b:1::", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1", "64:ff9b:0:1::8.8.8.8",
    "100::1", "1fff:ffff::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:1ff:ffff::1", "2001:db8::", "2001:db8::1", "2001:db8:ffff::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "2002:ffff::1",
    "3fff::1", "3fff:fff:ffff::1", "4000::1", "5f00::1",
    "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fdff:ffff::1",
    "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff00::1", "ff02::1", "ffff::1",
]  # fmt: skip
PUBLIC = [
    "1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0",
    "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0",
    "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0",
    "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0",
    "203.0.112.255", "203.0.114.0", "223.255.255.255",
    "64:ff9b::8.8.8.8", "64:ff9b::808:808",
    "2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::1", "2001:db9::1",
    "2003::1", "2606:4700::1111", "2620:fe::fe", "2a00:1450::1", "3ffe:ffff::1", "3fff:1000::1",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_of_the_internet_is_not_public(address):
    """Each range of the registry at its edges, with each cloud's metadata."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_of_the_internet_is_public(address):
    """The neighbours of each range, too."""
    assert is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "08.8.8.8",
        "8.8.8.8 ", " 8.8.8.8", "8.8.8.8\n", "8.8.8.8\0", "8.8.8.8/32", "\uff18.8.8.8",
        "2606:4700::1111%eth0", "2606:4700::1111%", "[2606:4700::1111]", "2606:4700:::1", ":", "%",
        "8.8.8", "8.8.8.8.8", "256.8.8.8", "-8.8.8.8",
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_public(text):
    """Nothing that one program reads as an address and another does not."""
    assert not is_public(text)


def test_nothing_is_public_that_python_calls_special():
    """Ours is never the more generous one, of thousands of addresses."""
    seed = 6
    print(f"seed {seed}")
    chance = random.Random(seed)
    starts = [int(ipaddress.ip_address(each.partition("%")[0])) for each in NOT_PUBLIC + PUBLIC]
    public = 0
    for _ in range(20_000):
        start = chance.choice(starts)
        bits = 32 if start >> 32 == 0 and chance.random() < 0.9 else 128
        near = start ^ (chance.getrandbits(bits) >> chance.randrange(bits))
        make = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
        address = make(near)
        if not is_public(str(address)):
            continue
        public += 1

        assert address.is_global, address
        assert not address.is_multicast, address

    assert public > 1000


@pytest.fixture
async def inside() -> AsyncIterator[Site]:
    """What must not be reached: on the loopback addresses, with something to tell."""
    hosts = [INSIDE, INSIDE_V6] if has_ipv6() else [INSIDE]
    async with run_site({"/": response(b"secret")}, host=hosts) as site:
        yield site


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f.1",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127。0。0。1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "user:password@127.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::1%lo]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "127.0.0.1#8.8.8.8",
    "8.8.8.8@127.0.0.1",
]
REACHED = ["127.0.0.1", "localhost", "0x7f.1", "0x7f000001", "0X7F.0.0x0.1", "ⓛocalhost"]
REACHED_V6 = ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"]


def at(host: str, port: int) -> str:
    host, hash_, rest = host.partition("#")
    return f"http://{host}:{port}/{hash_}{rest}"


@pytest.mark.parametrize("host", LOOPBACK)
async def test_no_spelling_of_loopback_connects(host, inside):
    """The service inside sees no connection at all, not even one that closes at once."""
    async with make_session(allow_private=False) as session:
        with pytest.raises(aiohttp.ClientError) as raised:
            await session.get(at(host, inside.port))

    # aiohttp itself refuses some spellings before it comes to an address, and some names are known
    # to some machines only.
    elsewhere = aiohttp.InvalidURL | aiohttp.ClientConnectorDNSError
    assert is_refusal(raised.value) or isinstance(raised.value, elsewhere)
    assert await inside.settle() == 0


@pytest.mark.parametrize(
    "host", [*REACHED, *(pytest.param(host, marks=IPV6) for host in REACHED_V6)]
)
async def test_where_the_operator_allows_it_these_spellings_connect(host, inside):
    """So it is the check that kept them out."""
    async with make_session(allow_private=True) as session:
        async with session.get(at(host, inside.port)) as answer:
            assert await answer.read() == b"secret"

    assert await inside.settle() == 1


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200",
        "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "255.255.255.255",
        "224.0.0.1", "[ff02::1]", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0xa9.0376",
    ],
)  # fmt: skip
async def test_private_networks_are_refused_at_once(host):
    """Without a packet: there is nothing to wait for, whether a port there is open or not."""
    async with make_session(allow_private=False) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(f"http://{host}/")

    assert is_refusal(raised.value)


@pytest.mark.parametrize("addresses", [[INSIDE, OUTSIDE], [OUTSIDE, INSIDE]])
async def test_of_a_name_only_public_addresses_are_used(addresses, inside):
    """In whatever order they come."""
    names = Names(mixed=[addresses])
    async with run_site({"/": response(b"public")}, host=OUTSIDE, port=inside.port):
        async with open_outside(names) as session:
            async with session.get(f"http://mixed:{inside.port}/") as answer:
                assert await answer.read() == b"public"

    assert await inside.settle() == 0


@pytest.mark.parametrize("addresses", [[INSIDE, OUTSIDE], [OUTSIDE, INSIDE, INSIDE_V6]])
async def test_a_public_address_that_fails_is_no_way_to_a_private_one(addresses, inside):
    """The second attempts, and those side by side, are checked as well."""
    async with open_outside(Names(mixed=[addresses])) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://mixed:{inside.port}/")

    assert await inside.settle() == 0


async def test_a_name_that_moves_is_refused_where_it_moved_to(inside):
    """Each connection asks once, and goes where the answer that was checked says."""
    names = Names(rebound=[[OUTSIDE], [INSIDE]])
    async with run_site({"/": response(b"public")}, host=OUTSIDE, port=inside.port):
        async with open_outside(names) as session:
            async with session.get(f"http://rebound:{inside.port}/") as answer:
                assert await answer.read() == b"public"
            assert names.asked == ["rebound"]

            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await session.get(f"http://rebound:{inside.port}/")

    assert is_refusal(raised.value)
    assert names.asked == ["rebound", "rebound"]
    assert await inside.settle() == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", [INSIDE, "0x7f.1", "[::1]", "[::ffff:7f00:1]", "inside"])
async def test_a_redirect_does_not_lead_inside(status, host, inside):
    """However it is spelled, and whichever redirect it is."""
    answers = {"/": redirect(at(host, inside.port), status)}
    names = Names(inside=[[INSIDE]], **{"0x7f.1": [[INSIDE]]})
    async with run_site(answers, host=OUTSIDE) as outside, open_outside(names) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(f"http://{OUTSIDE}:{outside.port}/")

        assert len(outside.requests) == 1
    assert is_refusal(raised.value)
    assert await inside.settle() == 0


async def test_a_redirect_to_the_same_name_is_checked_anew(inside):
    """A name may move between one step and the next."""
    answers = {"/": redirect("/next"), "/next": response(b"public")}
    names = Names(rebound=[[OUTSIDE], [INSIDE]])
    async with run_site(answers, host=OUTSIDE, port=inside.port), open_outside(names) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(f"http://rebound:{inside.port}/")

    assert is_refusal(raised.value)
    assert await inside.settle() == 0


async def test_proxies_of_the_environment_are_not_asked(inside, monkeypatch):
    """A proxy would connect to where the check cannot see."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{INSIDE}:{inside.port}")
    async with run_site({"/": response(b"public")}, host=OUTSIDE) as outside:
        async with open_outside() as session:
            async with session.get(f"http://{OUTSIDE}:{outside.port}/") as answer:
                assert await answer.read() == b"public"

    assert await inside.settle() == 0


async def test_no_cookie_is_kept():
    """Neither for the next step of a redirect, nor for the next request."""
    answers = {
        "/": response(status=302, Location="/next", Set_Cookie="visitor=1; Path=/"),
        "/next": response(b"public"),
    }
    names = Names(**{"files.example": [[OUTSIDE]]})
    async with run_site(answers, host=OUTSIDE) as outside, open_outside(names) as session:
        for _ in range(2):
            async with session.get(f"http://files.example:{outside.port}/") as answer:
                assert answer.status == 200

        assert len(outside.requests) == 4
        assert not any("cookie" in head.lower() for head in outside.requests)


async def test_credentials_are_for_the_host_they_were_given_for():
    """A redirect to another host, or another port of it, goes without them."""
    names = Names(**{name: [[OUTSIDE]] for name in ("first.example", "second.example")})
    async with run_site({}, host=OUTSIDE) as one, run_site({}, host=OUTSIDE) as other:
        one.answers = {
            "/": redirect("/same"),
            "/same": redirect(f"http://second.example:{one.port}/renamed"),
            "/renamed": redirect(f"http://second.example:{other.port}/"),
        }
        other.answers = {"/": redirect(f"http://first.example:{one.port}/back")}
        one.answers["/back"] = response(b"public")
        async with open_outside(names) as session:
            url = f"http://user:password@first.example:{one.port}/"
            async with session.get(url) as answer:
                assert await answer.read() == b"public"

        told = {
            head.split()[1]: "authorization: basic" in head.lower()
            for head in one.requests + other.requests
        }
        assert told == {"/": False, "/same": True, "/renamed": False, "/back": False}


def open_outside(names: Names | None = None) -> aiohttp.ClientSession:
    return make_session(allow_private=False, may_reach=is_outside, resolver=names)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("http://files.example.com/a.wav", "files.example.com"),
        ("HTTPS://Files.Example.COM:8443/a.wav?key=1#part", "files.example.com"),
        ("  https://files.example.com/\n", "files.example.com"),
        ("http://user:p%40ss@files.example.com/", "files.example.com"),
        ("http://files.example.com./", "files.example.com."),
        ("http://my_host/my file é.wav", "my_host"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://☃.example/", "xn--n3h.example"),
        ("http://[2606:4700::1111]:80/", "2606:4700::1111"),
        ("http://[fe80::1%25eth0]/", "fe80::1%25eth0"),
        ("http://[2606:4700::ABCD]/", "2606:4700::abcd"),
        ("http://2130706433/", "2130706433"),
        ("http://" + "a" * 63 + ".example/", "a" * 63 + ".example"),
        ("http://a/" + "b" * 4087, "a"),
    ],
)
def test_what_may_be_requested_is_read(written, host):
    """Where it leads is for the session to judge."""
    assert check_url(written, field="audio_url").raw_host == host


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "only http and https"),
        ("/a.wav", "only http and https"),
        ("a.wav", "only http and https"),
        ("//files.example.com/a.wav", "only http and https"),
        ("files.example.com/a.wav", "only http and https"),
        ("file:///etc/passwd", "begins with 'file', only http and https"),
        ("ftp://files.example.com/a.wav", "begins with 'ftp'"),
        ("gopher://127.0.0.1:6379/_INFO", "begins with 'gopher'"),
        ("data:audio/wav;base64,UklGRg==", "begins with 'data'"),
        ("ws://files.example.com/", "begins with 'ws'"),
        ("tcp://127.0.0.1:1/", "begins with 'tcp'"),
        ("unix:///run/docker.sock", "begins with 'unix'"),
        ("javascript:alert(1)", "begins with 'javascript'"),
        ("C:\\a.wav", "begins with 'c'"),
        ("http:", "names no host"),
        ("http://", "names no host"),
        ("http:///a.wav", "names no host"),
        ("http:/a.wav", "names no host"),
        ("http:a.wav", "names no host"),
        ("http:\\\\files.example.com\\a.wav", "names no host"),
        ("http://?x", "names no host"),
        ("http://:80/", "that is no URL"),
        ("http://@/", "that is no URL"),
        ("http://files.example.com:99999/", "that is no URL"),
        ("http://files.example.com:x/", "that is no URL"),
        ("http://[::1/", "that is no URL"),
        ("http://::1/", "that is no URL"),
        ("http://[]/", "that is no URL"),
        ("http://[1.2.3.4]/", "that is no URL"),
        ("http://public\\@127.0.0.1/", "that is no URL"),
        ("http://a\u200bb/", "that is no URL"),
        ("http://\ud800/", "that is no URL"),
        ("http://a b/", "'a b' is no host"),
        ("http://a\u3000b/", "'a b' is no host"),
        ("http://a%20b/", "'a%20b' is no host"),
        ("http://a%0d%0aX:1/", "is no host"),
        ("http://a%00.example/", "is no host"),
        ("http://a..b/", "'a..b' is no host"),
        ("http://.a/", "'.a' is no host"),
        ("http://*/", "'*' is no host"),
        ("http://" + "a" * 64 + ".example/", "is no host"),
        ("http://" + "a." * 130 + "example/", "is no host"),
        ("http://" + "é" * 60 + ".example/", "is no host|that is no URL"),
        ("http://files.exa\tmple.com/", "control character"),
        ("http://files.example.com/\r\nHost: other", "control character"),
        ("http://files.example.com/\0", "control character"),
        ("http://files.example.com\x7f/", "control character"),
        ("http://a/" + "b" * 4088, "longer than 4096 characters"),
    ],
)
def test_what_can_never_be_requested_is_refused(written, problem):
    """With a 400 that names the field."""
    with pytest.raises(InvalidRequest, match=problem) as raised:
        check_url(written, field="webhook")

    assert raised.value.message.startswith("webhook: ")
    assert (raised.value.param, raised.value.code) == ("webhook", "invalid_url")


@pytest.mark.parametrize(
    "written",
    ["http://user:hunter2@a b/", "http://user:hunter2@h:x/", "ftp://user:hunter2@h/", "hunter2"],
)
def test_a_refusal_shows_no_password(written):
    """Neither does what caused it, which a log would show."""
    with pytest.raises(InvalidRequest) as raised:
        check_url(written, field="audio_url")

    assert "hunter2" not in raised.value.message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_host_is_shown_as_people_write_it():
    """And not at any length."""
    assert shown_host(check_url("http://bücher.example/", field="audio_url")) == "'bücher.example'"
    long = check_url("http://" + "a." * 100 + "example/", field="audio_url")
    assert len(shown_host(long)) == 102
