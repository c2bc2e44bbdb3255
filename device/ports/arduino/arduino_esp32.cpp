/* ESP32 and its kin, by Arduino-ESP32 2.0 or 3.x: a task of its own on the core that Arduino leaves to sketches, cycles
 * of that core, and the largest free block of memory for the model. Neither Wi-Fi nor Bluetooth is ever started. */
#include <Arduino.h>

#if defined(ARDUINO_ARCH_ESP32)

#include <esp_attr.h>
#include <esp_heap_caps.h>
#include <esp_system.h>
#include <freertos/FreeRTOS.h>
#include <freertos/task.h>

#include "arduino_board.h"
#include "bl_boot.h"
#include "bl_pixel_table.h"
#include "bl_server.h"

enum {
    BODY_BYTES = 1024,
    RING_BYTES = 4096,
    DEFAULT_RING_BYTES = 256, /* the core's */
    STACK_BYTES = 8192,
    HEAP_RESERVE_BYTES = 16384, /* left in the block of internal memory that the model gets */
    PRIORITY = 10,              /* above a sketch's (1), below the system's own tasks (22 and more) */
    SLEEP_AT_LEAST_EVERY_MS = 1000,
};

#if CONFIG_FREERTOS_UNICORE
static const BaseType_t CORE = 0;
#else
static const BaseType_t CORE = 1; /* Wi-Fi, Bluetooth and timers, where there are any, are served by core 0 */
#endif

#if CONFIG_IDF_TARGET_ESP32
#define ISA "Xtensa LX6"
#elif CONFIG_IDF_TARGET_ESP32S2 || CONFIG_IDF_TARGET_ESP32S3
#define ISA "Xtensa LX7"
#elif CONFIG_IDF_TARGET_ESP32C3
#define ISA "RV32IMC"
#else
#define ISA CONFIG_IDF_TARGET
#endif

/* Of the linker scripts of ESP-IDF (sections.ld). */
extern "C" uint8_t _data_start[], _data_end[], _bss_start[], _bss_end[];

static RTC_NOINIT_ATTR bl_boot_record boot;
static uint8_t receive_buffer[BL_FRAME_BYTES(BODY_BYTES)];
static uint8_t send_buffer[BL_FRAME_BYTES(BODY_BYTES)];
static uint8_t code_tables[BL_CODE_TABLES_BYTES];
static uint32_t slept_at_ms;

/* --- line: a UART, or the chip's own USB where ARDUINO_USB_CDC_ON_BOOT makes that Serial ------------------------- */

static size_t serial_read(void *context, uint8_t *data, size_t capacity)
{
    int waiting = Serial.available();

    (void)context;
    if (waiting <= 0) {
        return 0;
    }
    return Serial.read(data, (size_t)waiting < capacity ? (size_t)waiting : capacity);
}

/* What a USB line does not take in its own time is lost, as on a cable that is pulled: the host asks again. */
static void serial_write(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    (void)Serial.write(data, length);
}

static void serial_flush(void *context)
{
    (void)context;
    Serial.flush();
}

#if !ARDUINO_USB_CDC_ON_BOOT /* else there is no rate */

/* Sixteenths of a divisor of 40 MHz (the slowest of the clocks that the family's UARTs are given) are 0.4 % at the
 * highest of these rates, and still fit its register at the lowest. */
static const uint32_t LEAST_BAUD = 1200, MOST_BAUD = 2000000;

static uint32_t nearest_baud(void *context, uint32_t baud)
{
    (void)context;
    return baud >= LEAST_BAUD && baud <= MOST_BAUD ? baud : 0;
}

/* begin would start the driver anew, and lose its ring. */
static void set_baud(void *context, uint32_t baud)
{
    serial_flush(context);
    Serial.updateBaudRate(baud);
}

static uint32_t milliseconds(void *context)
{
    (void)context;
    return (uint32_t)millis();
}

#endif

/* --- measurement ------------------------------------------------------------------------------------------------- */

/* The task never changes its core, whose counter this is. It turns over every 18 s at 240 MHz. */
static uint64_t cycle_count(void *context)
{
    static uint64_t last;

    (void)context;
    return bl_server_extend_ticks(&last, ESP.getCycleCount(), 32);
}

/* FreeRTOS paints a task's stack as it creates it, and counts in bytes here. */
static uint32_t stack_peak(void *context)
{
    (void)context;
    return STACK_BYTES - (uint32_t)uxTaskGetStackHighWaterMark(NULL);
}

static uint32_t heap_free_least(void *context)
{
    (void)context;
    return ESP.getMinFreeHeap();
}

static uint8_t reset_cause(void)
{
    switch (esp_reset_reason()) {
    case ESP_RST_POWERON: return BL_RESET_POWER_ON;
    case ESP_RST_EXT: return BL_RESET_PIN;
    case ESP_RST_SW: return BL_RESET_SOFTWARE;
    case ESP_RST_PANIC: return BL_RESET_FAULT;
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT: return BL_RESET_WATCHDOG;
    case ESP_RST_BROWNOUT: return BL_RESET_BROWNOUT;
    default: return BL_RESET_UNKNOWN;
    }
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

/* External memory where there is some, else the largest block of the internal one but for a reserve. */
static void take_arena(bl_port *port)
{
    uint32_t caps = MALLOC_CAP_SPIRAM | MALLOC_CAP_8BIT;
    size_t bytes = heap_caps_get_largest_free_block(caps);

    if (bytes == 0) {
        caps = MALLOC_CAP_INTERNAL | MALLOC_CAP_8BIT;
        bytes = heap_caps_get_largest_free_block(caps);
        bytes = bytes > HEAP_RESERVE_BYTES ? bytes - HEAP_RESERVE_BYTES : 0;
    }
    bytes &= ~(size_t)3;
    bytes = arduino_arena_cap() < bytes ? arduino_arena_cap() : bytes;
    port->arena = (uint8_t *)heap_caps_malloc(bytes, caps);
    port->arena_bytes = port->arena != NULL ? (uint32_t)bytes : 0;
}

/* --- the board --------------------------------------------------------------------------------------------------- */

void arduino_start(bl_port *port)
{
    /* Before begin: the UART's driver takes its ring then. */
    size_t ring_bytes = Serial.setRxBufferSize(RING_BYTES);

    Serial.begin(BL_BAUD);
    (void)bl_boot_begin(&boot);
    take_arena(port);
    port->read = serial_read;
    port->write = serial_write;
    port->flush = serial_flush;
#if !ARDUINO_USB_CDC_ON_BOOT
    port->nearest_baud = nearest_baud;
    port->set_baud = set_baud;
    port->milliseconds = milliseconds;
    port->boot_baud = BL_BAUD;
    port->max_baud = MOST_BAUD;
#endif
    port->ticks = cycle_count;
    port->stack_peak = stack_peak;
    port->heap_free_least = heap_free_least;
    port->receive_buffer = receive_buffer;
    port->send_buffer = send_buffer;
    port->body_bytes = BODY_BYTES;
    port->send_body_bytes = BODY_BYTES;
    port->code_tables = code_tables;
    port->window_bytes = (ring_bytes >= RING_BYTES ? RING_BYTES : DEFAULT_RING_BYTES) - 1;
    port->static_bytes = (uint32_t)(_data_end - _data_start) + (uint32_t)(_bss_end - _bss_start);
    port->pixel_table = bl_pixel_table;
    port->isa = ISA;
    port->clock_hz = getCpuFrequencyMhz() * 1000000u;
    port->ticks_per_second = port->clock_hz;
    port->timer_unit = BL_TIMER_CYCLES;
    port->reset_cause = reset_cause();
    port->boot_count = boot.boots;
    port->table_bits = 8;
}

static void task(void *serve)
{
    ((void (*)(void))serve)();
}

/* The loop's task, which calls this, ends; should the other not start, it serves itself. */
void arduino_run(void (*serve)(void))
{
    if (xTaskCreatePinnedToCore(task, "bitloop", STACK_BYTES, (void *)serve, PRIORITY, NULL, CORE) == pdPASS) {
        vTaskDelete(NULL);
    }
    serve();
}

/* Asleep, the idle task of this core runs: the task watchdog looks whether it does (where it watches this core at all),
 * and resets the chip if it did not for 5 s. */
void arduino_wait(void)
{
    vTaskDelay(1);
    slept_at_ms = millis();
}

void arduino_worked(void)
{
    if (millis() - slept_at_ms >= SLEEP_AT_LEAST_EVERY_MS) {
        arduino_wait();
    }
}

#endif /* ARDUINO_ARCH_ESP32 */
