"""Six STS3215 servos behind a serial port, at the level of packets: what LeRobot's own bus code talks to in tests.

Stands in for `serial.Serial` only; LeRobot's robot, bus and the vendor SDK run as they are. Protocol: Feetech SCS
(0xFF 0xFF id length instruction/error parameters checksum). Servos move at once to their goal while torque is on.
"""

from collections import defaultdict

import serial

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x82, 0x83
MODEL_STS3215 = 777
MODEL_AT, TORQUE_AT, GOAL_AT, POSITION_AT = 3, 40, 42, 56
MIN_AT, MAX_AT, OFFSET_AT = 9, 11, 31


class Servo:
    def __init__(self, number, calibration, model=MODEL_STS3215):
        self.memory = bytearray(128)
        self.put(MODEL_AT, model)
        self.memory[0:2] = bytes([3, 10])  # firmware
        self.put(MIN_AT, calibration["range_min"])
        self.put(MAX_AT, calibration["range_max"])
        self.put(OFFSET_AT, calibration["homing_offset"])
        self.put(POSITION_AT, (calibration["range_min"] + calibration["range_max"]) // 2)
        self.number = number

    def put(self, address, value):
        self.memory[address : address + 2] = value.to_bytes(2, "little")

    def get(self, address):
        return int.from_bytes(self.memory[address : address + 2], "little")

    def write(self, address, data):
        self.memory[address : address + len(data)] = data
        if self.memory[TORQUE_AT]:
            self.put(POSITION_AT, self.get(GOAL_AT))


class ServoBus:
    """Replaces serial.Serial: bytes written are parsed, answers wait to be read."""

    def __init__(self, calibration):
        self.servos = {c["id"]: Servo(c["id"], c) for c in calibration.values()}
        self.answers = bytearray()
        self.powered = True
        self.busy = False
        self.drop = defaultdict(int)  # instruction → how many of its answers get lost
        self.corrupt = defaultdict(int)
        self.error_bits = 0
        self.sync_writes = []  # (address, {id: value}) in order
        self.writes = []  # (id, address, bytes) in order
        self.opened = 0

    def open(self, port, **_):
        if self.busy:
            raise serial.SerialException(
                16, f"could not open port {port}: [Errno 16] Device or resource busy: '{port}'"
            )
        self.opened += 1
        return self

    # What the vendor SDK uses of serial.Serial:

    def reset_input_buffer(self):
        self.answers.clear()

    def flush(self):
        pass

    def close(self):
        self.opened -= 1

    @property
    def in_waiting(self):
        return len(self.answers)

    def read(self, count):
        taken, self.answers = bytes(self.answers[:count]), self.answers[count:]
        return taken

    def write(self, packet):
        packet = bytes(packet)
        assert packet[:2] == b"\xff\xff" and packet[-1] == ~sum(packet[2:-1]) & 0xFF
        self.answers.clear()
        if self.powered:
            self._handle(packet[2], packet[4], packet[5:-1])
        return len(packet)

    def _handle(self, number, instruction, data):
        if instruction == SYNC_WRITE:
            address, size = data[0], data[1]
            values = {}
            for start in range(2, len(data), size + 1):
                servo, value = data[start], data[start + 1 : start + 1 + size]
                if servo in self.servos:
                    self.servos[servo].write(address, value)
                values[servo] = int.from_bytes(value, "little")
            self.sync_writes.append((address, values))
        elif instruction == SYNC_READ:
            for servo in data[2:]:
                self._answer(servo, instruction, lambda s: s.memory[data[0] : data[0] + data[1]])
        elif instruction == READ:
            self._answer(number, instruction, lambda s: s.memory[data[0] : data[0] + data[1]])
        elif instruction == WRITE:
            self.writes.append((number, data[0], data[1:]))
            if number in self.servos:
                self.servos[number].write(data[0], data[1:])
            self._answer(number, instruction, lambda _: b"")
        elif instruction == PING:
            self._answer(number, instruction, lambda _: b"")

    def _answer(self, number, instruction, content):
        if number not in self.servos:
            return
        if self.drop[instruction]:
            self.drop[instruction] -= 1
            return
        body = bytes([number, 0, self.error_bits]) + bytes(content(self.servos[number]))
        body = bytes([body[0], len(body) - 1]) + body[2:]
        checksum = ~sum(body) & 0xFF
        if self.corrupt[instruction]:
            self.corrupt[instruction] -= 1
            checksum ^= 0x55
        self.answers += b"\xff\xff" + body + bytes([checksum])
