from __future__ import annotations

from ipaddress import ip_address

import pytest

from core.errors import WebhookTargetRefused
from core.webhooks.target_policy import Target, TargetPolicy, is_public

PUBLIC_ONLY = TargetPolicy()
LOOPBACK = TargetPolicy.parse(["127.0.0.0/8", "::1/128"])

NOT_PUBLIC = """
    0.0.0.0 10.1.2.3 100.64.1.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
    192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1
    240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:0:7f00:1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:20::1 2001:db8::1 2002:7f00:1:: 3fff::1
    5f00::1 fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1 ff0e::1
"""
PUBLIC = "1.1.1.1 8.8.8.8 100.63.255.255 172.32.0.1 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"

REFUSED_URLS = [
    "http://hooks.example.com/",
    "https://hooks.example.com:8443/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://user:password@hooks.example.com/",
    "https://user@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "//hooks.example.com/",
    "hooks.example.com",
    "https://",
    "https:///path",
    "https://./",
    "https://a..b/",
    "https://" + "a" * 64 + ".com/",
    "https://%31%32%37.0.0.1/",
    "https://hooks.example.com/\n",
    "https://hooks.example.com/" + "a" * 2048,
    "https://localhost/",
    "https://LOCALHOST./",
    "https://app.localhost/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://0/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fe80::1%25eth0]/",
]


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_an_address_that_only_the_server_can_reach_is_not_public(address: str):
    assert not is_public(ip_address(address))
    with pytest.raises(WebhookTargetRefused, match="not public"):
        PUBLIC_ONLY.check_address(Target("hooks.example.com", 443, only_allowed=False), ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_public_in_every_notation(address: str):
    assert is_public(ip_address(address))


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_can_never_be_delivered_to_is_refused_at_once(url: str):
    with pytest.raises(WebhookTargetRefused) as refused:
        PUBLIC_ONLY.check_url(url)
    assert refused.value.param == "url"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com/a?b=c", Target("hooks.example.com", 443, only_allowed=False)),
        ("https://hooks.example.com:443/", Target("hooks.example.com", 443, only_allowed=False)),
        ("https://bücher.example/", Target("xn--bcher-kva.example", 443, only_allowed=False)),
        ("https://1.1.1.1/", Target("1.1.1.1", 443, only_allowed=False)),
        ("https://[2606:4700:4700::1111]/", Target("2606:4700:4700::1111", 443, only_allowed=False)),
    ],
)
def test_a_public_https_url_is_accepted(url: str, target: Target):
    assert PUBLIC_ONLY.check_url(url) == target


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080/", "https://127.1:9/", "http://localhost:80/", "http://[::1]:5000/", "https://[::1]/"],
)
def test_an_allowed_network_may_be_reached_without_tls_and_on_any_port(url: str):
    LOOPBACK.check_url(url)


def test_plain_http_leads_to_allowed_networks_only():
    target = LOOPBACK.check_url("http://hooks.internal:8080/")  # a name: known at delivery
    LOOPBACK.check_address(target, ip_address("127.0.0.1"))
    LOOPBACK.check_address(target, ip_address("::ffff:127.0.0.1"))
    for address in ("1.1.1.1", "10.0.0.1", "64:ff9b::7f00:1"):
        with pytest.raises(WebhookTargetRefused):
            LOOPBACK.check_address(target, ip_address(address))


def test_allowing_one_network_opens_no_other():
    for url in ("http://10.0.0.1/", "https://10.0.0.1/", "http://1.1.1.1/", "https://169.254.169.254/"):
        with pytest.raises(WebhookTargetRefused):
            LOOPBACK.check_url(url)
    assert LOOPBACK.check_url("https://1.1.1.1/") == Target("1.1.1.1", 443, only_allowed=False)


def test_a_setting_that_is_no_network_is_told():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        TargetPolicy.parse(["10.0.0.1/8"])
